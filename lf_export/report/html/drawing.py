"""Charts as inline SVG: Vega-Lite draws them when the report is written; the page needs no library and no network.

Colours are the page's own CSS variables, so that one drawing serves light, dark and paper. Every mark with a
description can be reached by keyboard; the page's script shows the description beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

_SVG = "http://www.w3.org/2000/svg"
_VEGA_LITE = "6.1"
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Open Sans', sans-serif"
_CONFIG: dict[str, Any] = {
    "font": _FONT,
    "view": {"stroke": None},
    "axis": {
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "gridColor": "var(--grid)",
        "labelColor": "var(--soft)",
        "titleColor": "var(--soft)",
        "titleFontWeight": "normal",
        "titleFontSize": 12,
        "labelFontSize": 11,
        "labelPadding": 5,
        "titlePadding": 8,
        "labelLimit": 260,
    },
    "text": {"fill": "var(--ink)", "fontSize": 12},
}

Layer = dict[str, Any]


@dataclass(frozen=True)
class Chart:
    """A drawing: its caption, its SVG, and what has to be said under it."""

    caption: str
    svg: str
    note: str = ""


def draw(layers: Sequence[Layer], width: int, height: int, label: str) -> str:
    """The SVG of layered marks, each with its own data in the layer.

    Args:
        layers: Vega-Lite layers.
        width: of the plot without its axes, in pixels.
        height: likewise.
        label: what the drawing shows, for those who do not see it.
    """
    import vl_convert  # noqa: PLC0415 - starts a JavaScript engine

    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "background": None,
        "padding": 4,
        "width": width,
        "height": height,
        "layer": list(layers),
        "config": _CONFIG,
    }
    return _framed(vl_convert.vegalite_to_svg(spec, vl_version=_VEGA_LITE), label)


def layer(rows: Sequence[Mapping[str, Any]], mark: Mapping[str, Any], **encoding: Any) -> Layer:
    """One layer; without a `description` its marks say nothing to a screen reader, the others speak for them."""
    silent = {} if "description" in encoding else {"aria": False}
    return {"data": {"values": [dict(row) for row in rows]}, "mark": {**mark, **silent}, "encoding": encoding}


def number(field: str, **more: Any) -> dict[str, Any]:
    """A quantitative channel; `title=None` unless given."""
    return {"field": field, "type": "quantitative", "title": None, **more}


def name(field: str, **more: Any) -> dict[str, Any]:
    """A channel of names in the order of the rows."""
    return {"field": field, "type": "nominal", "sort": None, "title": None, **more}


def plain(field: str) -> dict[str, Any]:
    """A channel whose values are what is drawn: a colour, a shape, a text."""
    return {"field": field, "type": "nominal", "scale": None, "legend": None}


def said(field: str) -> dict[str, Any]:
    """A channel of words, such as labels and descriptions."""
    return {"field": field, "type": "nominal"}


def _framed(svg: str, label: str) -> str:
    """The drawing scaled to its place, with a name, and with marks that take the keyboard's focus."""
    ET.register_namespace("", _SVG)
    root = ET.fromstring(svg)  # noqa: S314 - drawn here, from values that Vega escapes
    root.attrib.pop("class", None)
    root.set("role", "group")
    root.set("aria-label", label)
    for node in root.iter():
        if node.get("role") == "graphics-symbol" and node.get("aria-roledescription") != "axis":
            node.set("tabindex", "0")
            node.set("class", "mark")
            node.set("role", "img")
            node.attrib.pop("aria-roledescription", None)
        elif node.get("role") in {"graphics-object", "graphics-symbol"}:
            for attribute in ("role", "aria-roledescription", "aria-label"):
                node.attrib.pop(attribute, None)
    return ET.tostring(root, encoding="unicode")
