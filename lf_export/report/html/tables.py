"""Tables of the page that are rows of cells and nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass

from lf_export.report.accuracy import slice_table, variant_table
from lf_export.report.arms import NOTE, arm_lines, arm_table
from lf_export.report.batches import grid_rows, grid_text
from lf_export.report.chat import DRIFT_HEAD, DRIFT_NOTE, drift_rows
from lf_export.report.model import Report
from lf_export.report.parts import TOKEN_CLASSES
from lf_export.report.serving import failures_text, limits_text, serving_rows, shown_rows
from lf_export.report.table import speed_mark


@dataclass(frozen=True)
class Table:
    """A table: what it is, what must be said of it, its head, and its rows as text.

    A row's first cell names it; the first `texts` columns hold words, the others figures.
    """

    caption: str
    notes: Sequence[str]
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1


def by_slice(report: Report) -> Table | None:
    """Right answers by slice, None where there are none."""
    head, rows = slice_table(report)
    return Table("Right answers by slice", (), head, rows) if rows else None


def by_variant(report: Report) -> Table | None:
    """The suites as they are and changed, None where no variant was asked for."""
    head, rows = variant_table(report)
    return Table("Variants of the suites", ("Not part of the verdict.",), head, rows) if rows else None


def drifted(report: Report) -> Table | None:
    """Greedy answers in a chat against the baseline's, None where none was asked for."""
    named = [(artifact.name, artifact.chat_drift) for artifact in report.artifacts if artifact.chat_drift]
    return Table("Drift of answers in a chat", (DRIFT_NOTE,), DRIFT_HEAD, drift_rows(named)) if named else None


def by_arm(report: Report) -> Table | None:
    """Raw answers beside those held to a grammar and routed, None where no arm was asked for."""
    head, rows = arm_table(report)
    words = 3
    shown = [[*row[:words], *(cell.replace("-", "\u2212") for cell in row[words:])] for row in rows]
    return Table("Arms beside the raw answers", (NOTE, *arm_lines(report)), head, shown, words) if rows else None


def batches(report: Report) -> Table | None:
    """Speed by prompt length and batch size, None where none were given."""
    named = [
        (artifact.name + speed_mark(artifact), artifact.latency_grid)
        for artifact in report.everyone
        if artifact.latency_grid
    ]
    return Table("Batches of prompts of one length", grid_text(named), *grid_rows(named)) if named else None


def under_load(report: Report) -> Table | None:
    """Servers with several requests under way together, None where there is no server."""
    named = [(artifact.name, artifact.serving) for artifact in report.everyone if artifact.serving]
    if not named:
        return None
    return Table("Servers under load", (*limits_text(named), *failures_text(named)), *serving_rows(named))


def shown_by_servers(report: Report) -> Table | None:
    """What servers showed of their distributions, None where none did."""
    named = [
        (
            artifact.name,
            [(kind, artifact.fidelity_shown[kind]) for kind in TOKEN_CLASSES if kind in artifact.fidelity_shown],
        )
        for artifact in report.artifacts
        if artifact.fidelity_shown
    ]
    if not named:
        return None
    note = "A server shows its likeliest tokens only: its KL is a lower bound, over these tokens and the rest as one."
    return Table("What servers showed", (note,), *shown_rows(named))
