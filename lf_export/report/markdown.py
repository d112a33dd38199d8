"""The report as a page that a release engineer reads: the verdict first, then what it rests on."""

from collections.abc import Iterator

from lf_export.report import accuracy, cells
from lf_export.report.arms import arms_markdown
from lf_export.report.batches import grid_rows, grid_text
from lf_export.report.chat import DRIFT_HEAD, DRIFT_NOTE, drift_rows
from lf_export.report.latency import ratio_rows
from lf_export.report.model import ArtifactReport, Report, SuiteFacts
from lf_export.report.parts import TOKEN_CLASSES
from lf_export.report.serving import failures_text, limits_text, serving_rows, shown_rows
from lf_export.report.table import NOT_REPRESENTATIVE, reasons, speed_mark


def to_markdown(report: Report) -> str:
    """The whole report as Markdown; sections without a measurement are left out."""
    sections = [
        [f"# {report.name}: {report.verdict}"],
        _verdicts(report),
        accuracy.calls_and_abstention(report),
        accuracy.errors(report),
        accuracy.categories(report),
        accuracy.slices(report),
        accuracy.variants(report),
        arms_markdown(report),
        _fidelity(report),
        _speed(report),
        _serving(report),
        _notes(report),
        _provenance(report),
    ]
    return "\n\n".join(block for section in sections for block in section) + "\n"


def _verdicts(report: Report) -> list[str]:
    enforced = [artifact for artifact in report.artifacts if artifact.enforced]
    passed = sum(artifact.gate is not None and artifact.gate.verdict == "PASS" for artifact in enforced)
    gate = report.gate
    head = ("artifact", "verdict", "endpoint", "items", "lost", "gained", "loss", "bounds of the loss", "items needed")
    rows = []
    for artifact in report.artifacts:
        for index, endpoint in enumerate(artifact.gate.endpoints if artifact.gate else ()):
            rows.append(
                [
                    artifact.name if not index else "",
                    _verdict(artifact) if not index else "",
                    f"{endpoint.name}: {endpoint.verdict}",
                    str(endpoint.n),
                    str(endpoint.lost),
                    str(endpoint.gained),
                    cells.points(endpoint.loss),
                    f"{cells.points(endpoint.lower)} to {cells.points(endpoint.upper)}",
                    str(endpoint.items_needed or cells.NOTHING),
                ]
            )
    asked = f"at a margin of {cells.points(gate.margin)} (one-sided Tango bounds, alpha {gate.alpha:g})"
    count = f"{passed} of {len(enforced)} enforced artifacts pass against `{report.baseline.name}`"
    blocks = [f"**{report.verdict}**: {count} {asked}."]
    if rows:
        blocks.append(cells.markdown_table(head, rows))
    why = [f"- **{each.name}**: {'; '.join(reasons(each))}" for each in report.artifacts if reasons(each)]
    if why:
        blocks.append("\n".join(why))
    if behind := [f"- **{each.name}**: {said}" for each in report.artifacts for said in each.slower]:
        blocks.append("\n".join(behind))
    return blocks


def _verdict(artifact: ArtifactReport) -> str:
    if artifact.gate is None:
        return cells.NOTHING
    return artifact.gate.verdict if artifact.enforced else f"{artifact.gate.verdict} (advisory)"


def _fidelity(report: Report) -> list[str]:
    head = (
        *("artifact", "tokens of", "tokens", "KL mean", "95 %", "KL p50", "KL p99", "top-1"),
        *("margin", "margin p1", "of baseline's", "95 %"),
    )
    rows = []
    for artifact in report.artifacts:
        for name in sorted(artifact.fidelity, key=_class_order):
            each = artifact.fidelity[name]
            interval = cells.span(each.kl_lower, each.kl_upper)
            values = (each.kl_p50, each.kl_p99)
            rows.append(
                [
                    artifact.name,
                    name,
                    str(each.tokens),
                    cells.number(each.kl_mean),
                    interval,
                    *(cells.number(value) for value in values),
                    cells.percent(each.top1_agreement),
                    cells.number(each.margin_mean),
                    cells.number(each.margin_p1),
                    cells.number(each.margin_ratio),
                    cells.span(each.margin_ratio_lower, each.margin_ratio_upper),
                ]
            )
    perplexity = [
        [
            artifact.name,
            cells.number(artifact.chat_perplexity, 4),
            cells.ratio(artifact.chat_perplexity, report.baseline.chat_perplexity),
        ]
        for artifact in report.everyone
        if artifact.chat_perplexity is not None
    ]
    shown = [
        (artifact.name, sorted(artifact.fidelity_shown.items(), key=lambda pair: _class_order(pair[0])))
        for artifact in report.artifacts
        if artifact.fidelity_shown
    ]
    blocks = []
    if shown:
        note = (
            "A server shows its likeliest tokens only: its KL is a lower bound, over these tokens and the rest as one."
        )
        blocks += [note, cells.markdown_table(*shown_rows(shown))]
    if rows:
        note = "KL(baseline ‖ artifact) in nats on the reference answers; `call` is all tokens inside a call."
        blocks += [note, cells.markdown_table(head, rows)]
    if perplexity:
        blocks.append(cells.markdown_table(("artifact", "chat perplexity", "of the baseline"), perplexity))
    drifts = [(artifact.name, artifact.chat_drift) for artifact in report.artifacts if artifact.chat_drift]
    if drifts:
        blocks += [DRIFT_NOTE, cells.markdown_table(DRIFT_HEAD, drift_rows(drifts))]
    return ["## Fidelity to the baseline", *blocks] if blocks else []


def _class_order(name: str) -> tuple[int, str]:
    return (TOKEN_CLASSES.index(name) if name in TOKEN_CLASSES else len(TOKEN_CLASSES), name)


def _speed(report: Report) -> list[str]:
    base = report.baseline
    head = ("artifact", "runtime", "TTFT p50 / p90 / p99", "TPOT p50 / p90 / p99", "prefill tok/s", "decode tok/s")
    rows = [
        [artifact.name, artifact.runtime or cells.NOTHING, *_speed_cells(artifact, base)]
        for artifact in report.everyone
    ]
    sizes = [
        [
            artifact.name,
            cells.seconds(artifact.load_seconds),
            cells.size(artifact.peak_rss_bytes),
            cells.size(artifact.disk_bytes),
            cells.ratio(artifact.disk_bytes, base.disk_bytes),
        ]
        for artifact in report.everyone
    ]
    blocks = ["## Speed and size"]
    if any(artifact.latency for artifact in report.everyone):
        blocks += ["Batch size 1; in brackets the multiple of the baseline.", cells.markdown_table(head, rows)]
    if ratios := [(each.name, each.latency_ratios) for each in report.everyone if each.latency_ratios]:
        columns = ("artifact", "prompts and rounds", "TTFT", "TPOT", "whole answer")
        text = (
            "Times over the baseline's, both timed in turn on the same prompts; in brackets 95 %, clustered by prompt."
        )
        blocks += [text, cells.markdown_table(columns, ratio_rows(ratios))]
    batches = [(each.name + speed_mark(each), each.latency_grid) for each in report.everyone if each.latency_grid]
    if batches:
        blocks += [cells.markdown_table(*grid_rows(batches)), "\n".join(f"- {line}" for line in grid_text(batches))]
    blocks.append(cells.markdown_table(("artifact", "load", "peak memory", "on disk", "of the baseline"), sizes))
    if gpu := [[each.name, cells.size(each.peak_gpu_bytes)] for each in report.everyone if each.peak_gpu_bytes]:
        blocks.append(cells.markdown_table(("artifact", "peak GPU memory"), gpu))
    if not all(artifact.representative for artifact in report.everyone):
        blocks.append(
            f"{NOT_REPRESENTATIVE} not representative for speed: this runtime judges answers, it does not serve them."
        )
    return blocks


def _serving(report: Report) -> list[str]:
    named = [(artifact.name, artifact.serving) for artifact in report.everyone if artifact.serving]
    if not named:
        return []
    blocks = ["## Under load", "\n".join(limits_text(named)), cells.markdown_table(*serving_rows(named))]
    failed = [f"- {line}" for line in failures_text(named)]
    return [*blocks, "\n".join(failed)] if failed else blocks


def _speed_cells(artifact: ArtifactReport, base: ArtifactReport) -> Iterator[str]:
    latency = artifact.latency
    if latency is None:
        yield from [cells.NOTHING] * 4
        return
    mark, other = speed_mark(artifact), base.latency
    for name in ("ttft", "tpot"):
        mine = getattr(latency, name)
        theirs = getattr(other, name).p50 if other else None
        times = " / ".join(cells.number(None if t is None else 1000 * t) for t in (mine.p50, mine.p90, mine.p99))
        yield f"{times} ms{_multiple(mine.p50, theirs)}{mark}"
    for name in ("prefill_tokens_per_second", "decode_tokens_per_second"):
        mine = getattr(latency, name)
        yield f"{cells.number(mine)}{_multiple(mine, getattr(other, name) if other else None)}{mark}"


def _multiple(value: float | None, baseline: float | None) -> str:
    text = cells.ratio(value, baseline)
    return "" if text == cells.NOTHING else f" ({text})"


def _notes(report: Report) -> list[str]:
    lines = [f"- {artifact.name}: {note}" for artifact in report.everyone for note in artifact.notes]
    return ["## Notes", "\n".join(lines)] if lines else []


def _provenance(report: Report) -> list[str]:
    machine = report.machine
    named: list[tuple[str, SuiteFacts | None]] = [
        ("calls", report.suites.calls),
        ("no-call", report.suites.no_call),
        ("chat", report.suites.chat),
    ]
    facts = [
        f"- {report.created}; dialect `{report.dialect}`, seed {report.seed}"
        + (f", {report.threads} threads" if report.threads else "")
        + (f", at most {report.max_new_tokens} new tokens" if report.max_new_tokens else ""),
        (
            f"- {machine.processor}, {machine.architecture}, {machine.system}: {machine.cores} cores, "
            f"{cells.size(machine.memory_bytes)} of memory"
            + (f"; {' '.join(machine.instruction_sets)}" if machine.instruction_sets else "")
        ),
        f"- {', '.join(f'{name} {version}' for name, version in report.versions.items())}",
        *(
            f"- suite {name}: `{suite.path}` {cells.short(suite.sha256)}, {suite.items} of {suite.of_items} items"
            for name, suite in named
            if suite
        ),
    ]
    head = ("artifact", "format", "scheme", "digest", "calibration")
    rows = [
        [
            artifact.name,
            artifact.format,
            artifact.scheme or cells.NOTHING,
            cells.short(artifact.digest),
            cells.short(artifact.calibration_digest),
        ]
        for artifact in report.everyone
    ]
    return ["## What ran", "\n".join(facts), cells.markdown_table(head, rows)]
