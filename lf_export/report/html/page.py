"""The report as one HTML file that needs nothing else: no network, no fonts, no library."""

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lf_export.report import cells
from lf_export.report.html import charts, tables
from lf_export.report.html.drawing import Chart
from lf_export.report.html.flips import browser, error_counts
from lf_export.report.html.ratio_charts import ratio_charts
from lf_export.report.html.signs import SIGNS, endpoint_name, verdict_of
from lf_export.report.html.tradeoffs import trade_offs
from lf_export.report.latency import ratio_rows
from lf_export.report.model import ArtifactReport, Report
from lf_export.report.parts import TOKEN_CLASSES
from lf_export.report.places import public
from lf_export.report.table import reasons

MOST_BYTES = 5_000_000
# What is left for everything but drawings and items: tables, style, script.
_FRAME = 500_000

_HERE = Path(__file__).parent
# What HTML cannot hold, escaped or not: control characters and lone surrogates.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_RANKS = {"FAIL": 0, "INCONCLUSIVE": 1, "PASS": 2}


@dataclass(frozen=True)
class Matrix:
    """Items by kind of error and category, before and after, for one artifact."""

    artifact: str
    categories: Sequence[str]
    rows: Sequence[tuple[str, Sequence[tuple[int, int]]]]


def to_html(report: Report) -> str:
    """The page. What a model, a user or a file name wrote is shown as text; folders of the machine are not shown."""
    drawings = {
        "losses": charts.losses(report),
        "trade_offs": trade_offs(report),
        "latencies": charts.latencies(report),
        "ratio_drawings": ratio_charts(report),
        "layers": charts.layers(report),
        "errors": [chart for each in report.artifacts if (chart := charts.errors(each, _totals(report, each)))],
    }
    room = MOST_BYTES - _FRAME - sum(map(_bytes, drawings.values()))
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": cells.percent,
        "points": lambda share: _minus(cells.points(share)),
        "kl": _kl,
        "number": cells.number,
        "span": lambda pair: cells.span(*pair),
        "ms": cells.milliseconds,
        "seconds": cells.seconds,
        "size": cells.size,
        "kind": lambda text: str(text).replace("_", " "),
        "public": public(report),
        "short": lambda digest: cells.NOTHING if digest is None else digest[:16],
    }
    page = environment.get_template("report.html.j2").render(
        report=report,
        everyone=report.everyone,
        **drawings,
        matrices=[matrix for each in report.artifacts if (matrix := _matrix(report, each)).rows],
        slices=tables.by_slice(report),
        variants=tables.by_variant(report),
        drifted=tables.drifted(report),
        arms=tables.by_arm(report),
        batches=tables.batches(report),
        served=tables.under_load(report),
        shown=tables.shown_by_servers(report),
        browser=browser(report, room),
        ratios=ratio_rows([(each.name, each.latency_ratios) for each in report.everyone if each.latency_ratios]),
        signs=SIGNS,
        verdict_of=verdict_of,
        rate=cells.rate,
        ratio=cells.ratio,
        nothing=cells.NOTHING,
        endpoint_name=endpoint_name,
        summary=_summary(report),
        reasons=lambda artifact: reasons(artifact, endpoint_name),
        classes=[each for each in TOKEN_CLASSES if any(each in artifact.fidelity for artifact in report.artifacts)],
        worst_first=sorted(report.artifacts, key=_rank),
        svg=lambda chart: Markup(chart.svg),  # noqa: S704 - drawn here, its texts escaped
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - the same
        policy=f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'",
    )
    return _FORBIDDEN.sub("\ufffd", page)


def _minus(text: str) -> str:
    return text.replace("-", "\u2212")


def _kl(value: float | None) -> str:
    """A divergence with as many decimals as its neighbours, so that columns line up."""
    if value is None:
        return cells.NOTHING
    return "<0.00001" if 0 < value < 1e-5 else f"{value:.5f}"


def _summary(report: Report) -> str:
    odd = [artifact.name for artifact in report.artifacts if artifact.control and not artifact.control.met]
    controls = f" Nothing passes: {', '.join(odd)} did not come out as known." if odd else ""
    return _enforced(report) + controls


def _enforced(report: Report) -> str:
    enforced = [artifact for artifact in report.artifacts if artifact.enforced]
    if not enforced:
        return "No artifact decides this verdict: all are advisory."
    passed = sum(artifact.gate is not None and artifact.gate.verdict == "PASS" for artifact in enforced)
    if len(enforced) == 1:
        outcome = "passes" if passed else "does not pass"
        return f"{enforced[0].name}, the one enforced artifact, {outcome} against {report.baseline.name}."
    return f"{passed} of {len(enforced)} enforced artifacts pass against {report.baseline.name}."


def _rank(artifact: ArtifactReport) -> tuple[bool, int]:
    """Enforced ones first, the worst verdict first."""
    return not artifact.enforced, _RANKS.get(verdict_of(artifact), 3)


def _totals(report: Report, artifact: ArtifactReport) -> list[tuple[str, int, int]]:
    """Kind of error, items in the baseline, items in the artifact; the most frequent first."""
    before, after = error_counts(report.baseline), error_counts(artifact)
    counts = [(kind, before[kind].total(), after[kind].total()) for kind in {*before, *after}]
    return sorted(counts, key=lambda each: (-max(each[1:]), each[0]))


def _matrix(report: Report, artifact: ArtifactReport) -> Matrix:
    before, after = error_counts(report.baseline), error_counts(artifact)
    categories = list(
        dict.fromkeys(
            item.category for item in sorted(artifact.own_items, key=lambda item: (item.suite, item.category))
        )
    )
    kinds = [name for name, _, _ in _totals(report, artifact)]
    rows = [(kind, [(before[kind][each], after[kind][each]) for each in categories]) for kind in kinds]
    wrong = []
    for each in categories:
        counts = tuple(
            sum(not item.correct for item in one.own_items if item.category == each)
            for one in (report.baseline, artifact)
        )
        wrong.append((counts[0], counts[1]))
    return Matrix(
        artifact.name, categories, [("items that are wrong", wrong), *rows] if kinds or any(map(any, wrong)) else []
    )


def _bytes(drawing: Chart | Sequence[Chart] | None) -> int:
    charts_ = [] if drawing is None else [drawing] if isinstance(drawing, Chart) else drawing
    return sum(len(chart.svg) for chart in charts_)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
