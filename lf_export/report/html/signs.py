"""What a verdict looks like: a word, a sign, a shape and a colour, so that none of them carries it alone."""

from lf_export.report.model import ArtifactReport

BASELINE = "baseline"
ENDPOINTS = {"strict_call": "exact calls"}
SIGNS = {"PASS": "✓", "FAIL": "✕", "INCONCLUSIVE": "?"}
_SHAPES = {BASELINE: "diamond", "PASS": "circle", "INCONCLUSIVE": "square", "FAIL": "triangle-up"}
_COLOURS = {
    BASELINE: "var(--soft)",
    "PASS": "var(--pass)",
    "INCONCLUSIVE": "var(--unsure)",
    "FAIL": "var(--fail)",
}


def verdict_of(artifact: ArtifactReport) -> str:
    """The artifact's verdict, or that it is the baseline."""
    return BASELINE if artifact.gate is None else artifact.gate.verdict


def look(verdict: str, *, hollow: bool = False) -> dict[str, str]:
    """Shape, stroke and fill of a verdict in a chart; hollow for what is not representative."""
    colour = _COLOURS[verdict]
    return {"shape": _SHAPES[verdict], "stroke": colour, "fill": "var(--paper)" if hollow else colour}


def endpoint_name(name: str) -> str:
    """An endpoint as a reader calls it."""
    return ENDPOINTS.get(name, name.replace("_", " "))
