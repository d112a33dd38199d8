"""The trade-off charts: size and speed against damage, a point for each artifact and one for the baseline."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from lf_export.report import cells
from lf_export.report.html.charts import POINT, WIDTH, looks
from lf_export.report.html.drawing import Chart, Layer, draw, layer, number, said
from lf_export.report.html.labels import labels
from lf_export.report.html.signs import BASELINE, look, verdict_of
from lf_export.report.model import ArtifactReport, Report

_HEIGHT = 220

Value = Callable[[ArtifactReport], float | None]


def trade_offs(report: Report) -> list[Chart]:
    """Size and speed against damage: a point for each artifact, and the baseline."""
    biggest = max((each.disk_bytes or 0 for each in report.everyone), default=0)
    unit, scale = ("GB", 1e9) if biggest >= 1e9 else ("MB", 1e6)
    across: list[tuple[str, str, Value]] = [
        ("Size", f"size on disk, {unit}", lambda each: None if each.disk_bytes is None else each.disk_bytes / scale),
        ("Speed", "decode, tokens per second", _decode),
    ]
    up: list[tuple[str, str, Value]] = [
        ("divergence on call tokens", "mean KL on call tokens, nats", _call_kl),
        ("exact calls", "exact calls, %", _exact),
    ]
    charts = []
    for short, x_title, x_of in across:
        for other, y_title, y_of in up:
            rows = [
                _trade_row(each, float(x), float(y), hollow=short == "Speed" and not each.representative)
                for each in report.everyone
                if (x := x_of(each)) is not None and (y := y_of(each)) is not None
            ]
            if len(rows) > 1:
                charts.append(_trade_off(report, rows, f"{short} against {other}", x_title, y_title))
    return charts


def _trade_row(artifact: ArtifactReport, x: float, y: float, *, hollow: bool) -> dict[str, Any]:
    verdict = verdict_of(artifact)
    speed = _decode(artifact)
    calls = artifact.calls
    kept = cells.rate(calls.strict_exact, calls.n) if calls else cells.NOTHING
    kl = "0, by definition" if verdict == BASELINE else cells.number(_call_kl(artifact))
    scheme = artifact.scheme or artifact.format
    facts = [
        f"{artifact.name}: {verdict}",
        f"{scheme} in {artifact.runtime or cells.NOTHING}, {cells.size(artifact.disk_bytes)}",
        f"exact calls {kept}, KL {kl}",
        f"decode {cells.number(speed)} tokens/s" + ("" if artifact.representative else ", not representative"),
    ]
    return {"x": x, "y": y, "name": artifact.name, "tip": "\n".join(facts), **look(verdict, hollow=hollow)}


def _trade_off(report: Report, rows: list[dict[str, Any]], caption: str, x_title: str, y_title: str) -> Chart:
    right = max(row["x"] for row in rows) * 1.08
    x_scale = {"domain": [0, right], "nice": False}
    marks: list[Layer] = []
    if y_title.startswith("mean KL"):
        low, axis = _decades([row["y"] for row in rows])
        for row in rows:
            row["y"] = max(row["y"], low)
        top = max(row["y"] for row in rows) * 1.6
        y_scale: dict[str, Any] = {"type": "log", "domain": [low, top], "nice": False}
        heights = [math.log(row["y"] / low) / math.log(top / low) for row in rows]
    else:
        values = [row["y"] for row in rows]
        floor = _exact(report.baseline)
        if floor is not None:
            floor -= 100 * report.gate.margin
            values.append(floor)
            marks.append(_level(floor, f"baseline less {100 * report.gate.margin:g} pp", y_title))
        pad = max(max(values) - min(values), 2.0) * 0.2
        bounds = [min(values) - pad, max(values) + pad]
        y_scale, axis = {"domain": bounds, "nice": False, "zero": False}, {"tickCount": 5}
        heights = [(row["y"] - bounds[0]) / (bounds[1] - bounds[0]) for row in rows]
    x = number("x", scale=x_scale, axis={"tickCount": 5, "grid": False}, title=x_title)
    y = number("y", scale=y_scale, axis=axis, title=y_title)
    for row, height in zip(rows, heights, strict=True):
        row |= {"across": row["x"] / right, "up": height}
    marks = [layer(rows, POINT, x=x, y=y, **looks()), *marks, *labels(rows, x, y)]
    hollow = any(row["fill"] != row["stroke"] for row in rows)
    note = "Hollow: dequantized to run, its speed says nothing about a deployment." if hollow else ""
    return Chart(caption, draw(marks, WIDTH, _HEIGHT, caption), note)


def _decades(values: Sequence[float]) -> tuple[float, dict[str, Any]]:
    """Where 0 is drawn on a logarithmic axis, and the axis: a decade each, and 0 at its foot."""
    smallest = min((value for value in values if value > 0), default=1e-3)
    first, last = math.floor(math.log10(smallest)), math.ceil(math.log10(max(*values, smallest)))
    low = 10.0 ** (first - 0.6)
    steps = [10.0**power for power in range(first, last + 1)]
    return low, {
        "values": [low, *steps],
        "labelExpr": f"datum.value < {low * 1.01!r} ? '0' : format(datum.value, '~g')",
    }


def _level(at: float, text: str, title: str) -> Layer:
    mark = {"type": "rule", "stroke": "var(--fail)", "strokeDash": [5, 4], "strokeWidth": 1.5}
    line = layer([{"y": at}], mark, y=number("y", title=title))
    word = layer(
        [{"y": at, "text": text}],
        {"type": "text", "align": "left", "baseline": "top", "dx": 4, "dy": 4, "fill": "var(--fail)", "fontSize": 11},
        x={"value": 0}, y=number("y", title=title), text=said("text"),
    )  # fmt: skip
    return {"layer": [line, word]}


def _decode(artifact: ArtifactReport) -> float | None:
    return artifact.latency.decode_tokens_per_second if artifact.latency else None


def _call_kl(artifact: ArtifactReport) -> float | None:
    found = artifact.fidelity.get("call")
    return 0.0 if artifact.gate is None else found.kl_mean if found else None


def _exact(artifact: ArtifactReport) -> float | None:
    return 100 * artifact.calls.strict_exact / artifact.calls.n if artifact.calls and artifact.calls.n else None
