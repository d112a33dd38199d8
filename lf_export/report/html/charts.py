"""Charts of a report: losses against the margin, latency, errors by kind and by layer."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from lf_export.report import cells
from lf_export.report.evidence import LayerErrors
from lf_export.report.html.drawing import Chart, Layer, draw, layer, name, number, plain, said
from lf_export.report.html.signs import BASELINE, endpoint_name, look, verdict_of
from lf_export.report.model import ArtifactReport, Report
from lf_export.report.table import speed_mark

WIDTH = 380
_ROW = 30
_MOST_TICKS = 160
POINT = {"type": "point", "size": 110, "strokeWidth": 2, "opacity": 1}


def losses(report: Report) -> Chart | None:
    """The loss of each endpoint with its bounds, and the margin."""
    margin = 100 * report.gate.margin
    rows = [
        {
            "row": f"{artifact.name} · {endpoint_name(endpoint.name)}",
            "loss": 100 * (endpoint.loss or 0.0),
            "lower": 100 * endpoint.lower,
            "upper": 100 * endpoint.upper,
            "tip": f"{artifact.name}, {endpoint_name(endpoint.name)}: {endpoint.verdict}\n"
            f"loss {cells.points(endpoint.loss)}, "
            f"bounds {cells.points(endpoint.lower)} to {cells.points(endpoint.upper)}\n"
            f"{endpoint.n} items, {endpoint.lost} lost, {endpoint.gained} gained",
            **look(endpoint.verdict),
        }
        for artifact in report.artifacts
        for endpoint in (artifact.gate.endpoints if artifact.gate else ())
        if endpoint.n
    ]
    if not rows:
        return None
    y = name("row", axis={"ticks": False, "domain": False, "labelColor": "var(--ink)", "labelFontSize": 12})
    title = "loss against the baseline, percentage points"
    axis = {"labelExpr": "datum.value ? format(datum.value, '+~g') : '0'", "tickCount": 7}
    x = number("lower", axis=axis, title=title)
    marks = [
        _rule(0, title, "var(--line)"),
        _rule(margin, title, "var(--fail)", dashed=True),
        layer(
            [{"at": margin, "text": f"margin {margin:g} pp"}],
            {"type": "text", "baseline": "bottom", "dy": -4, "fill": "var(--fail)", "fontSize": 11},
            x=number("at", title=title), y={"value": 0}, text=said("text"),
        ),
        layer(
            rows, {"type": "rule", "strokeWidth": 2.5, "opacity": 0.75}, x=x, x2={"field": "upper"}, y=y,
            stroke=plain("stroke"),
        ),
        layer(rows, POINT, x=number("loss", title=title), y=y, **looks()),
    ]  # fmt: skip
    svg = draw(marks, 480, _ROW * len(rows), "Loss of each endpoint with its bounds, against the margin")
    return Chart(
        "Loss with its bounds",
        svg,
        "A bar that ends left of the dashed line is under the margin. Left of 0 the artifact was right more often.",
    )


def latencies(report: Report) -> list[Chart]:
    """How times to the first token and between tokens are distributed."""
    parts: list[tuple[str, str, Callable[[ArtifactReport], Sequence[float]]]] = [
        ("Time to first token", "ttft", lambda each: each.raw.ttft_seconds),
        ("Time per output token", "tpot", lambda each: each.raw.tpot_seconds),
    ]
    return [chart for caption, key, values in parts if (chart := _latency(report, caption, key, values)) is not None]


def layers(report: Report) -> list[Chart]:
    """The quantizer's errors by layer, beside those of plain rounding."""
    return [
        _layers(each, found)
        for each in report.artifacts
        if (found := each.layer_errors) is not None and any(layer.layer is not None for layer in found.layers)
    ]


def errors(artifact: ArtifactReport, counts: Sequence[tuple[str, int, int]]) -> Chart | None:
    """Items by kind of error, in the baseline and in the artifact.

    Args:
        artifact: whose.
        counts: kind, the baseline's items, the artifact's items.
    """
    if not counts:
        return None
    rows = [
        {
            "kind": kind.replace("_", " "),
            "before": before,
            "after": after,
            "tip": f"{kind.replace('_', ' ')}: {before} before, {after} in {artifact.name} ({after - before:+d})",
        }
        for kind, before, after in counts
    ]
    y = name("kind", axis={"ticks": False, "domain": False, "labelColor": "var(--ink)", "offset": 9})
    x = number("before", axis={"tickMinStep": 1, "format": "d", "tickCount": 6}, title="items")
    point = {**POINT, "size": 70}
    after = number("after", title="items")
    marks = [
        layer(rows, {"type": "rule", "strokeWidth": 2, "stroke": "var(--line)"}, x=x, x2={"field": "after"}, y=y),
        layer(rows, point, x=x, y=y, **_constant(BASELINE, hollow=True)),
        layer(rows, point, x=after, y=y, **_constant(verdict_of(artifact)), description=said("tip")),
    ]
    svg = draw(marks, WIDTH - 110, 23 * len(rows), f"Items by kind of error: the baseline and {artifact.name}")
    return Chart(artifact.name, svg)


def _logarithmic(values: Sequence[float]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A logarithmic scale just wide enough, and an axis that shows 1, 2 and 5 of each decade."""
    low, high = min(values, default=1e-3) / 1.3, max(values, default=1e-2) * 1.3
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = [step * 10.0**power for power in powers for step in (1, 2, 5)]
    shown = [step for step in steps if low <= step <= high]
    return {"type": "log", "domain": [low, high], "nice": False}, {"values": shown, "format": "~g"}


def _latency(
    report: Report, caption: str, key: str, values: Callable[[ArtifactReport], Sequence[float]]
) -> Chart | None:
    ticks, points = [], []
    for artifact in report.everyone:
        if artifact.latency is None:
            continue
        row = artifact.name + speed_mark(artifact)
        ticks += [{"row": row, "ms": 1000 * value} for value in _thinned(values(artifact))]
        found = getattr(artifact.latency, key)
        for label, share in (("p50", found.p50), ("p90", found.p90), ("p99", found.p99)):
            if share is not None:
                tip = f"{row}: {label} {cells.milliseconds(share)}\nof {len(values(artifact))} values"
                style = look(verdict_of(artifact), hollow=label != "p50")
                points.append(
                    {"row": row, "ms": 1000 * share, "tip": tip, "size": 110 if label == "p50" else 46, **style}
                )
    if not points:
        return None
    y = name("row", axis={"ticks": False, "domain": False, "labelColor": "var(--ink)", "grid": True})
    x = number("ms", axis={"tickCount": 6, "grid": False}, scale={"zero": True}, title="milliseconds")
    size = {"field": "size", "type": "quantitative", "scale": None, "legend": None}
    marks = [
        layer(ticks, {"type": "tick", "thickness": 1, "size": 16, "opacity": 0.4, "color": "var(--soft)"}, x=x, y=y),
        layer(points, {"type": "point", "strokeWidth": 2, "opacity": 1}, x=x, y=y, size=size, **looks()),
    ]
    rows = len({point["row"] for point in points})
    return Chart(caption, draw(marks, WIDTH - 60, 36 * rows, f"{caption}: values, and p50, p90 and p99"))


def _thinned(values: Sequence[float]) -> list[float]:
    """All values, or evenly spaced ones of their order where they are many."""
    if len(values) <= _MOST_TICKS:
        return list(values)
    ordered = sorted(values)
    return [ordered[round(at * (len(ordered) - 1) / (_MOST_TICKS - 1))] for at in range(_MOST_TICKS)]


def _layers(artifact: ArtifactReport, found: LayerErrors) -> Chart:
    way = "rounded to nearest" if found.plain == "rtn" else "llama.cpp's own rounding"
    ours = [each for each in found.layers if each.layer is not None and each.error]
    rows: list[dict[str, Any]] = [
        {
            "layer": each.layer,
            "error": each.error,
            "tip": f"layer {each.layer}: {cells.number(each.error)}, {way} {cells.number(each.plain_error)}\n"
            f"worst: {each.worst} {cells.number(each.worst_error)}",
        }
        for each in ours
    ]
    plains = [{"layer": each.layer, "error": each.plain_error} for each in ours if each.plain_error]
    scale, axis = _logarithmic([float(row["error"] or 0) for row in (*rows, *plains)])
    x = number("layer", axis={"tickMinStep": 1, "format": "d", "grid": False}, scale={"zero": False}, title="layer")
    y = number("error", axis=axis, scale=scale, title="relative error")
    line = {"type": "line", "strokeWidth": 1.6, "interpolate": "linear"}
    point = {"type": "point", "size": 34, "filled": True, "opacity": 1, "color": "var(--accent)"}
    marks = [
        layer(plains, {**line, "stroke": "var(--soft)", "strokeDash": [4, 3]}, x=x, y=y),
        layer(rows, {**line, "stroke": "var(--accent)"}, x=x, y=y),
        layer(rows, point, x=x, y=y, description=said("tip")),
    ]
    apart = [f"{each.worst} {cells.number(each.worst_error)}" for each in found.layers if each.layer is None]
    note = f"Solid: this artifact. Dashed: {way}." + (f" Outside the layers: {', '.join(apart)}." if apart else "")
    return Chart(artifact.name, draw(marks, WIDTH, 150, f"Errors by layer of {artifact.name}"), note)


def _rule(at: float, title: str, colour: str, *, dashed: bool = False) -> Layer:
    mark = {"type": "rule", "stroke": colour, "strokeWidth": 1.5, **({"strokeDash": [5, 4]} if dashed else {})}
    return layer([{"at": at}], mark, x=number("at", title=title))


def looks() -> dict[str, Any]:
    """The channels of a mark whose rows say shape, colours and description."""
    return {"shape": plain("shape"), "stroke": plain("stroke"), "fill": plain("fill"), "description": said("tip")}


def _constant(verdict: str, *, hollow: bool = False) -> dict[str, Any]:
    return {key: {"value": value} for key, value in look(verdict, hollow=hollow).items()}
