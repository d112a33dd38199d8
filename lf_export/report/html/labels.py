"""Names beside points: where each has room, worked out before anything is drawn."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from lf_export.report.html.drawing import Layer, layer, said

# The plot is about this many letters wide and lines high, at the size of labels.
_LETTERS, _LINES = 58, 15
# Where a name may stand: the way it is aligned, and its distance in pixels.
_PLACES = {
    "above": {"align": "center", "dx": 0, "dy": -13},
    "below": {"align": "center", "dx": 0, "dy": 15},
    "right": {"align": "left", "dx": 11, "dy": 0},
    "left": {"align": "right", "dx": -11, "dy": 0},
}
_SHIFT = {"above": (-0.5, 1.0), "below": (-0.5, -1.1), "right": (0.03 * _LETTERS, 0.0), "left": (-0.03 * _LETTERS, 0.0)}

Box = tuple[float, float, float, float]


def labels(rows: Sequence[Mapping[str, Any]], x: Mapping[str, Any], y: Mapping[str, Any]) -> list[Layer]:
    """Text layers for points at (`across`, `up`), shares of the plot, so that names cover neither points nor names."""
    taken = [_box(row["across"] * _LETTERS - 0.8, row["up"] * _LINES, 1.6) for row in rows]
    placed: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for at, row in enumerate(rows):
        others = taken[:at] + taken[at + 1 :]
        best = min(_PLACES, key=lambda place: _cost(_place(row, place), others))
        taken.append(_place(row, best))
        placed[best].append(row)
    return [
        layer(
            [{"x": row["x"], "y": row["y"], "name": row["name"]} for row in members],
            {"type": "text", "baseline": "middle", **_PLACES[place]},
            x=dict(x),
            y=dict(y),
            text=said("name"),
        )
        for place, members in placed.items()
    ]


def _place(row: Mapping[str, Any], place: str) -> Box:
    across, up = _SHIFT[place]
    width = len(row["name"]) + 1
    left = row["across"] * _LETTERS
    left += across * width if place in {"above", "below"} else across if place == "right" else across - width
    return _box(left, row["up"] * _LINES + up, width)


def _box(left: float, middle: float, width: float) -> Box:
    return (left, left + width, middle - 0.5, middle + 0.5)


def _cost(box: Box, others: Sequence[Box]) -> float:
    """Overlap with what is there, and what hangs over the plot's edge."""
    covered = sum(
        max(0.0, min(box[1], other[1]) - max(box[0], other[0]))
        * max(0.0, min(box[3], other[3]) - max(box[2], other[2]))
        for other in others
    )
    outside = max(0.0, -box[0]) + max(0.0, box[1] - _LETTERS) + 2 * max(0.0, -box[2]) + max(0.0, box[3] - _LINES - 1)
    return covered * 3 + outside
