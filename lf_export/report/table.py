"""The summary that ends a run in a terminal."""

from collections.abc import Callable

from lf_export.report import accuracy, cells
from lf_export.report.model import ArtifactReport, Report
from lf_export.report.serving import limits_text, serving_rows

_HEAD = ("artifact", "verdict", "exact calls", "BFCL", "abstention", "KL call", "chat ppl", "TTFT", "tok/s", "disk")
NOT_REPRESENTATIVE = "†"
ADVISORY = "*"


def render_table(report: Report) -> str:
    """A plain text table, a row for each artifact; slices, variants, reasons and the verdict under it.

    No line end at the end.
    """
    rows = [
        _row(report.baseline, "baseline"),
        *(_row(artifact, _verdict(artifact)) for artifact in report.artifacts),
    ]
    tables = [(_HEAD, rows), accuracy.slice_table(report), accuracy.variant_table(report)]
    lines = [line for head, listed in tables if listed for line in (cells.plain_table(head, listed), "")]
    if served := [(artifact.name, artifact.serving) for artifact in report.artifacts if artifact.serving]:
        lines += [cells.plain_table(*serving_rows(served)), *limits_text(served), ""]
    for artifact in report.artifacts:
        lines += [f"{artifact.name}: {reason}" for reason in [*reasons(artifact), *artifact.slower]]
    if not all(each.representative for each in report.everyone):
        lines.append(f"{NOT_REPRESENTATIVE} not representative for speed")
    if not all(artifact.enforced for artifact in report.artifacts):
        lines.append(f"{ADVISORY} advisory: does not decide the exit status")
    lines.append(f"verdict: {report.verdict}")
    return "\n".join(lines)


def reasons(artifact: ArtifactReport, called: Callable[[str], str] = str) -> list[str]:
    """Why the verdict is what it is: broken floors first, then each endpoint, as `called` calls it, and each limit."""
    if artifact.gate is None:
        return []
    return [
        *_control(artifact),
        *artifact.gate.problems,
        *(f"{called(endpoint.name)} {endpoint.verdict}: {endpoint.reason}" for endpoint in artifact.gate.endpoints),
        *(f"limit {limit.verdict}: {limit.reason}" for limit in artifact.gate.limits),
    ]


def _control(artifact: ArtifactReport) -> list[str]:
    if artifact.control is None:
        return []
    outcome = "as it came out" if artifact.control.met else "which did NOT come out: this run proves nothing"
    return [f"control, expected is {artifact.control.expected}, {outcome}"]


def speed_mark(artifact: ArtifactReport) -> str:
    """The sign behind a speed that says nothing about a deployment."""
    return "" if artifact.representative else f" {NOT_REPRESENTATIVE}"


def _verdict(artifact: ArtifactReport) -> str:
    if artifact.gate is None:
        return cells.NOTHING
    return artifact.gate.verdict if artifact.enforced else f"{artifact.gate.verdict} {ADVISORY}"


def _row(artifact: ArtifactReport, verdict: str) -> list[str]:
    calls, no_call, latency = artifact.calls, artifact.no_call, artifact.latency
    fidelity = artifact.fidelity.get("call")
    return [
        artifact.name,
        verdict,
        cells.rate(calls.strict_exact, calls.n) if calls else cells.NOTHING,
        cells.rate(calls.bfcl_like, calls.n) if calls else cells.NOTHING,
        cells.rate(no_call.abstained, no_call.n) if no_call else cells.NOTHING,
        cells.number(fidelity.kl_mean) if fidelity else cells.NOTHING,
        cells.number(artifact.chat_perplexity),
        cells.milliseconds(latency.ttft.p50) + speed_mark(artifact) if latency else cells.NOTHING,
        cells.number(latency.decode_tokens_per_second) + speed_mark(artifact) if latency else cells.NOTHING,
        cells.size(artifact.disk_bytes),
    ]
