"""Charts of times over the baseline's, both taken in turn: a point with its interval, left of 1 is faster."""

from collections.abc import Iterator
from typing import Any

from lf_export.report.html.charts import POINT, WIDTH, looks
from lf_export.report.html.drawing import Chart, draw, layer, name, number, plain
from lf_export.report.html.signs import look, verdict_of
from lf_export.report.latency import Ratio, ratio_text
from lf_export.report.model import ArtifactReport, Report
from lf_export.report.table import speed_mark

_ROW = 24
_MOST_ROWS = 60
_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 3, 5, 10, 20, 50, 100)
_MEASURES = (("ttft", "TTFT"), ("tpot", "per token"), ("end_to_end", "whole answer"))


def ratio_charts(report: Report) -> list[Chart]:
    """The ratios of single prompts, and those of batches; none where nothing was timed in turn."""
    singly = [
        row
        for each in report.artifacts
        if each.latency_ratios
        for key, words in _MEASURES
        for row in _row(each, words, getattr(each.latency_ratios, key))
    ]
    together = [
        row
        for each in report.artifacts
        if each.latency_grid
        for cell in each.latency_grid.cells
        for key, words in _MEASURES[:2]
        for row in _row(each, f"{cell.prompt_length} × {cell.batch_size}, {words}", getattr(cell, key))  # noqa: RUF001 - a sign of multiplication
    ]
    named = (
        ("Time over the baseline's, one prompt at a time", singly),
        ("Time over the baseline's, batches", together),
    )
    return [_chart(caption, rows) for caption, rows in named if rows]


def _row(artifact: ArtifactReport, words: str, found: Ratio | None) -> Iterator[dict[str, Any]]:
    if found is None or not found.estimate:
        return
    label = f"{artifact.name}{speed_mark(artifact)} · {words}"
    # One prompt gives no interval: its point stands alone.
    yield {
        "row": label,
        "ratio": found.estimate,
        "lower": found.lower or found.estimate,
        "upper": found.upper or found.estimate,
        "tip": f"{label}: {ratio_text(found)} of the baseline's",
        **look(verdict_of(artifact), hollow=not artifact.representative),
    }


def _chart(caption: str, rows: list[dict[str, Any]]) -> Chart:
    left_out = len(rows) - _MOST_ROWS
    rows = rows[:_MOST_ROWS]
    title = "times the baseline's: left of 1 is faster"
    ends = [1.0, *(row[key] for row in rows for key in ("lower", "upper"))]
    low, high = min(ends) / 1.1, max(ends) * 1.1
    scale = {"type": "log", "domain": [low, high], "nice": False}
    axis = {"values": [step for step in _STEPS if low <= step <= high], "format": "~g", "labelOverlap": True}
    y = name("row", axis={"ticks": False, "domain": False, "labelColor": "var(--ink)"})
    x = number("lower", scale=scale, axis=axis, title=title)
    rule = {"type": "rule", "strokeWidth": 2.5, "opacity": 0.75}
    marks = [
        layer(
            [{"at": 1}], {"type": "rule", "stroke": "var(--soft)", "strokeDash": [5, 4]}, x=number("at", title=title)
        ),
        layer(rows, rule, x=x, x2={"field": "upper"}, y=y, stroke=plain("stroke")),
        layer(rows, {**POINT, "size": 80}, x=number("ratio", title=title), y=y, **looks()),
    ]
    note = "Both were timed in turn; the bar is the 95 % interval. A bar right of the dashed line: slower."
    if left_out > 0:
        note += f" {left_out} more rows in the table alone."
    return Chart(caption, draw(marks, WIDTH - 60, _ROW * len(rows), f"{caption}, with intervals"), note)
