"""One `Report` value of a bench run, and its views: JSON, Markdown, a table for the terminal."""

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
    Percentiles,
    RawValues,
    Report,
    SuiteFacts,
    Suites,
)

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
    "SuiteFacts",
    "Suites",
]
