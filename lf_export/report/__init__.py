"""One `Report` value of a bench run, and its views: JSON, Markdown, HTML, a table for the terminal."""

from lf_export.report.files import read_report, schema_text, to_json, write_html, write_report
from lf_export.report.html import to_html
from lf_export.report.markdown import to_markdown
from lf_export.report.model import (
    ArtifactReport,
    CallMetrics,
    CategoryCounts,
    EndpointResult,
    Fidelity,
    GateResult,
    GateSettings,
    ItemResult,
    Latency,
    Machine,
    NoCallMetrics,
    RawValues,
    Report,
    SuiteFacts,
    Suites,
)
from lf_export.report.parts import Percentiles
from lf_export.report.serving import ServingLevel, ShownFidelity
from lf_export.report.table import render_table

__all__ = [
    "ArtifactReport",
    "CallMetrics",
    "CategoryCounts",
    "EndpointResult",
    "Fidelity",
    "GateResult",
    "GateSettings",
    "ItemResult",
    "Latency",
    "Machine",
    "NoCallMetrics",
    "Percentiles",
    "RawValues",
    "Report",
    "ServingLevel",
    "ShownFidelity",
    "SuiteFacts",
    "Suites",
    "read_report",
    "render_table",
    "schema_text",
    "to_html",
    "to_json",
    "to_markdown",
    "write_html",
    "write_report",
]
