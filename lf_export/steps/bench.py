"""The bench step: every artifact against the baseline on the same items, a report, a verdict."""

import datetime as dt
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lf_export.calibration.suites import EvalItem, stratified
from lf_export.calibration.tokens import TokenClass, encode
from lf_export.calibration.variants import Variant, parse_variant, vary
from lf_export.checkpoint.lock import writing
from lf_export.checkpoint.staging import staging
from lf_export.errors import InputError
from lf_export.functions.dialects import Dialect, dialect_for
from lf_export.metrics.gate import Verdict, exit_status, overall
from lf_export.metrics.kept import MOST_TOKENS
from lf_export.progress import say, stage
from lf_export.provenance import machine, manifest, versions, write_manifest
from lf_export.report.files import HTML_NAME, JSON_NAME, read_report, write_html, write_report
from lf_export.report.model import GateSettings, Machine, Report, Suites
from lf_export.report.places import published
from lf_export.report.table import render_table
from lf_export.runtimes import RUNTIMES, default_runtime
from lf_export.runtimes.causal import load_tokenizer
from lf_export.runtimes.llguidance_follower import check_llguidance
from lf_export.steps.arms import Routing, routing_of
from lf_export.steps.baseline_cache import BaselineCache, baseline_key
from lf_export.steps.bench_options import BenchOptions
from lf_export.steps.cards import write_results
from lf_export.steps.contamination import check_contamination
from lf_export.steps.controls import CONTROLS, check_names, judged_control, make_controls
from lf_export.steps.disk import check_disk
from lf_export.steps.engine import Cluster
from lf_export.steps.engine_tasks import measured_apart
from lf_export.steps.evidence import item_texts
from lf_export.steps.findings import artifact_report, overall_verdict
from lf_export.steps.interleaved import Beside
from lf_export.steps.measure import Measured, loops_more, measure
from lf_export.steps.measure_endpoint import ServedArtifact, check_endpoint, measure_endpoint
from lf_export.steps.prompts import Prompt, answered, grouped, prepare
from lf_export.steps.seal import bench_files, bench_inputs, seal_page
from lf_export.steps.suites import load_suites
from lf_export.steps.workload import Workload

BASELINE = "merged"


@dataclass(frozen=True)
class BenchOutcome:
    """What a bench prints and leaves with."""

    text: str
    facts: Mapping[str, Any]
    status: int

    @classmethod
    def of(cls, report: Report, folder: Path) -> "BenchOutcome":
        """The outcome of a report that lies in `folder`."""
        text = f"{render_table(report)}\n\nreport: {folder / HTML_NAME}"
        return cls(text, report.model_dump(mode="json"), exit_status(overall_verdict(report)))


def named_artifacts(paths: Sequence[Path]) -> dict[str, Path]:
    """Artifacts by name: the name of the folder, or of the file without its ending.

    Raises:
        InputError: an artifact is not there, or two have one name.
    """
    named: dict[str, Path] = {}
    problems = []
    for path in paths:
        name = path.stem if path.is_file() else path.resolve().name
        if not path.exists():
            problems.append(f"{path}: no such artifact")
        elif name in named or name == BASELINE:
            problems.append(f"{path}: the name {name!r} is taken, expected artifacts with names of their own")
        named[name] = path
    if problems:
        raise InputError.of(problems)
    return named


def runtimes_by_name(given: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """`--runtime` values as runtime by artifact; a value without a name is for all.

    Raises:
        InputError: no such artifact or runtime.
    """
    found: dict[str, str] = {}
    for value in given:
        name, _, runtime = value.rpartition("=")
        if runtime not in RUNTIMES:
            raise InputError(f"--runtime {value}: no such runtime, expected one of: {', '.join(RUNTIMES)}")
        if name and name not in names:
            raise InputError(f"--runtime {value}: no such artifact, expected one of: {', '.join(names)}")
        found.update(dict.fromkeys([name] if name else names, runtime))
    return found


def bench_artifacts(
    artifacts: Mapping[str, Path | ServedArtifact],
    baseline: Path,
    out: Path,
    options: BenchOptions,
    cluster: Cluster | None = None,
) -> BenchOutcome:
    """Judge every artifact against `baseline`; writes report.json and its views into the folder `out`.

    On a `cluster` artifacts are measured beside each other, which says nothing about their speed.

    An earlier report in `out` is replaced when the new one is complete. Each artifact's card gets its results.

    Raises:
        InputError: suites, dialect or baseline that cannot be used, or a suite that an artifact was calibrated on.
        MissingError: a runtime's package is not installed.
        StepError: the baseline cannot be measured, or a server does not answer before it is.
    """
    with writing(out):
        return _bench(artifacts, baseline, out, options, cluster)


def _bench(
    artifacts: Mapping[str, Path | ServedArtifact],
    baseline: Path,
    out: Path,
    options: BenchOptions,
    cluster: Cluster | None,
) -> BenchOutcome:
    unknown = [name for name in options.enforce or () if name not in artifacts]
    if unknown:
        raise InputError(f"no artifact is named {unknown[0]!r}, expected one of: {', '.join(artifacts)}")
    if options.controls:
        check_names(artifacts)
    variants = [parse_variant(text) for text in dict.fromkeys(options.variants)]
    tokenizer = load_tokenizer(baseline)
    dialect = dialect_for(options.dialect, tokenizer)
    items, suites = load_suites(
        {
            "calls": (options.calls, options.limit_calls),
            "no_call": (options.no_call, options.limit_no_call),
            "chat": (options.chat, options.limit_chat),
        },
        options.seed,
    )
    judging = {"calls": items["calls"], "no-call": items["no_call"]}
    local = {name: path for name, artifact in artifacts.items() if (path := _local(artifact)) is not None}
    contaminated = check_contamination(local, judging, options.allow_contaminated)
    items["variants"] = _varied(items, variants, options.seed)
    workload = _workload(items, dialect, tokenizer, options)
    if "routed" in options.arms:
        workload = replace(workload, routing=_routing(options, dialect, tokenizer, workload))
    if options.arms:
        _check_engine({BASELINE: baseline, **local}, options)
    for served in artifacts.values():
        if isinstance(served, ServedArtifact):
            check_endpoint(served, workload, dialect, tokenizer)
    compared = 64 * 8 * MOST_TOKENS * options.fidelity_items  # of the baseline's logits; an answer is seldom longer
    check_disk({out: 1_000_000 + compared})
    with staging(out, overwrite=True) as folder, tempfile.TemporaryDirectory(dir=folder) as scratch:
        controls = make_controls(baseline, Path(scratch) / "controls", options.threads) if options.controls else {}
        judged = {**artifacts, **controls}
        with Beside(_runtime(BASELINE, baseline, options), baseline, options.threads, Path(scratch)) as beside:
            paths = {BASELINE: baseline, **judged}
            measured = _measure_all(paths, workload, dialect, tokenizer, options, Path(scratch), beside, cluster)
        report = published(_report(judged, baseline, measured, workload, suites, options, contaminated))
        write_report(report, folder)
        facts = manifest("bench", verdict=report.verdict, inputs=bench_inputs(local, baseline))
        write_manifest(folder, facts | {"files": bench_files(folder)})
    # What was measured is safe by now: the page and the cards can be made again from report.json.
    write_html(report, out / HTML_NAME)
    seal_page(out)
    _write_cards(local, report)
    return BenchOutcome.of(report, out)


def earlier_bench(artifacts: Mapping[str, Path], out: Path) -> BenchOutcome:
    """The outcome of the bench whose report lies in `out`; an artifact that was made again since gets its results too.

    Raises:
        InputError: the report is not there or is not one.
    """
    report = read_report(out / JSON_NAME)
    _write_cards(artifacts, report)
    return BenchOutcome.of(report, out)


def _write_cards(artifacts: Mapping[str, Path], report: Report) -> None:
    for artifact in report.artifacts:
        if artifact.name in artifacts:
            write_results(artifacts[artifact.name], artifact, report)


def _measure_all(
    paths: Mapping[str, Path | ServedArtifact],
    workload: Workload,
    dialect: Dialect,
    tokenizer: Any,
    options: BenchOptions,
    scratch: Path,
    beside: Beside,
    cluster: Cluster | None,
) -> dict[str, Measured]:
    logits = scratch / "logits"
    logits.mkdir()
    cache, key = BaselineCache(options.cache), _baseline_key(paths[BASELINE], workload, options)
    recorded = cache.read(key, logits)
    measured: dict[str, Measured] = {}
    judged = {prompt.item.id for prompt in workload.prompts if not prompt.item.variant}
    apart: dict[str, Measured] = {}
    for name, path in paths.items():
        with stage(f"bench {name}", workload.units, "items") as advance:
            if isinstance(path, ServedArtifact):
                measured[name] = measure_endpoint(
                    path, workload, dialect, tokenizer, baseline_logits=logits, advance=advance
                )
            elif name in apart:
                measured[name] = apart[name]
            else:
                beside.make_room()
                measured[name] = measure(
                    path,
                    _runtime(name, path, options),
                    workload,
                    dialect,
                    threads=options.threads,
                    workdir=scratch,
                    baseline_logits=logits,
                    is_baseline=name == BASELINE,
                    advance=advance,
                    beside=None if name == BASELINE else beside,
                    recorded=recorded if name == BASELINE else None,
                )
        if name == BASELINE:
            beside.peak_bytes = measured[name].peak_rss_bytes
            if recorded is None:
                cache.write(key, measured[name].recorded, logits)
            if cluster is not None:
                apart = _apart(paths, workload, dialect, options, scratch, cluster)
        if name != BASELINE and (problem := loops_more(measured[BASELINE], measured[name], judged)):
            measured[name].problems.append(problem)
        for problem in measured[name].problems:
            say(f"{name}: {problem}")
    return measured


def _runtime(name: str, path: Path, options: BenchOptions) -> str:
    return options.runtimes.get(name) or default_runtime(path)


def _baseline_key(baseline: Path | ServedArtifact, workload: Workload, options: BenchOptions) -> str:
    if options.cache is None or isinstance(baseline, ServedArtifact):
        return ""
    return baseline_key(baseline, _runtime(BASELINE, baseline, options), options.dialect, options.threads, workload)


def _apart(
    paths: Mapping[str, Path | ServedArtifact],
    workload: Workload,
    dialect: Dialect,
    options: BenchOptions,
    scratch: Path,
    cluster: Cluster,
) -> dict[str, Measured]:
    files = {name: path for name, path in paths.items() if isinstance(path, Path) and name != BASELINE}
    runtimes = {name: _runtime(name, path, options) for name, path in files.items()}
    return measured_apart(files, runtimes, workload, dialect, options.threads, scratch, cluster)


def _varied(items: Mapping[str, Sequence[EvalItem]], variants: Sequence[Variant], seed: int) -> list[EvalItem]:
    every = [*items["calls"], *items["no_call"]]
    return [item for variant in variants for item in vary(every, variant, pool=items["calls"], seed=seed)]


def _workload(
    items: Mapping[str, Sequence[EvalItem]], dialect: Dialect, tokenizer: Any, options: BenchOptions
) -> Workload:
    asked = prepare([*items["calls"], *items["no_call"], *items["variants"]], dialect, tokenizer)
    judged = len(items["calls"]) + len(items["no_call"])
    half = math.ceil(options.fidelity_items * len(items["calls"]) / max(judged, 1))
    compared = [
        *_part(items["calls"], half, options.seed),
        *_part(items["no_call"], options.fidelity_items - half, options.seed),
    ]
    chat = []
    for item in items["chat"]:
        sample = encode(dialect.render(answered(item), item.functions), tokenizer, bos=dialect.bos)
        counted = sample.classes == TokenClass.PROSE
        if counted[1:].any():
            counted[0] = False  # nothing predicts the first token
            chat.append((tuple(sample.ids.tolist()), counted))
    by_id = {prompt.item.id: prompt for prompt in asked}
    return Workload(
        groups=grouped(asked),
        compared=frozenset(item.id for item in compared),
        chat=chat,
        timed=[by_id[item.id] for item in _part(items["calls"], options.latency_prompts, options.seed)],
        max_new_tokens=options.max_new_tokens,
        timed_tokens=options.latency_tokens,
        timed_rounds=options.latency_rounds,
        chat_groups=grouped(prepare(_part(items["chat"], options.drift_items, options.seed), dialect, tokenizer)),
        chat_tokens=options.drift_tokens,
        seed=options.seed,
        arms=options.arms,
        grid=options.grid,
    )


def _routing(options: BenchOptions, dialect: Dialect, tokenizer: Any, workload: Workload) -> Routing:
    return routing_of(
        options.router_calls, options.router_chat, dialect, tokenizer, 2 * workload.longest, seed=options.seed
    )


def _check_engine(paths: Mapping[str, Path], options: BenchOptions) -> None:
    """See that there is an engine of grammars where a runtime needs a package for it.

    Raises:
        MissingError: llguidance is not installed.
    """
    used = {_runtime(name, path, options) for name, path in paths.items()}
    if not used.isdisjoint({"torch", "transformers"}):
        check_llguidance()


def _part(items: Sequence[EvalItem], count: int, seed: int) -> list[EvalItem]:
    return list(items) if count >= len(items) else stratified(items, count, seed=seed)


def _report(
    artifacts: Mapping[str, Path | ServedArtifact],
    baseline: Path,
    measured: Mapping[str, Measured],
    workload: Workload,
    suites: Suites,
    options: BenchOptions,
    contaminated: Mapping[str, Sequence[str]],
) -> Report:
    gate = GateSettings(
        margin=options.margin,
        alpha=options.alpha,
        margins=dict(options.margins),
        min_items=options.min_items,
        baseline_floor=options.baseline_floor,
        limits=dict(options.limits),
    )
    prompts: list[Prompt] = workload.prompts
    known = CONTROLS.keys() if options.controls else set()
    enforced = set(artifacts) - known if options.enforce is None else set(options.enforce)
    reference = measured[BASELINE]
    parts = [
        artifact_report(
            name,
            _local(path),
            measured[name],
            reference,
            prompts,
            gate,
            enforced=name in enforced,
            notes=contaminated.get(name, ()),
        )
        for name, path in artifacts.items()
    ]
    parts = [judged_control(part) if part.name in known else part for part in parts]
    verdicts = [part.gate.verdict for part in parts if part.enforced and part.gate is not None]
    if any(part.control is not None and not part.control.met for part in parts):
        verdicts.append(Verdict.INCONCLUSIVE.value)  # what cannot tell a known verdict can tell no other
    merged = artifact_report(BASELINE, baseline, reference, None, prompts, gate, enforced=False)
    return Report(
        name=options.name,
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        verdict=overall([Verdict(each) for each in verdicts]).value,
        gate=gate,
        suites=suites,
        dialect=options.dialect,
        max_new_tokens=options.max_new_tokens,
        seed=options.seed,
        threads=options.threads,
        machine=Machine(**machine()),
        versions=versions(),
        baseline=merged,
        artifacts=parts,
        texts=item_texts(prompts, merged, parts),
    )


def _local(artifact: Path | ServedArtifact) -> Path | None:
    return artifact.path if isinstance(artifact, ServedArtifact) else artifact
