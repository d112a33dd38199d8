"""The part of a report on chat: how far greedy answers leave the baseline's."""

from collections.abc import Iterable

from pydantic import Field

from lf_export.report import cells
from lf_export.report.parts import Count, Measured, Part, Share

DRIFT_HEAD = ("artifact", "answers", "identical", "95 %", "agree up to", "95 %", "first difference, token")
DRIFT_NOTE = (
    "Greedy answers to the chat suite against the baseline's: `agree up to` is the mean share of an answer before its "
    "first token that differs. Two answers that part may both be good: reported, not judged."
)


class PartedAnswer(Part):
    """An answer that is not the baseline's."""

    item: str
    baseline: str
    artifact: str


class ChatDrift(Part):
    """Greedy answers to the chat suite against the baseline's, to a limit of tokens."""

    answers: Count
    identical: Count = Field(description="The same token by token.")
    identical_lower: Measured = Field(None, description="Of their share, lower end of Wilson's 95 % score interval.")
    identical_upper: Measured = None
    agreed: Share = Field(description="Mean share of an answer before its first token that differs.")
    agreed_lower: Measured = None
    agreed_upper: Measured = None
    first_difference: Measured = Field(
        None, description="Median place of the first token that differs, where one does."
    )
    parted: list[PartedAnswer] = Field(default_factory=list, description="Those that part earliest, three at most.")


def drift_rows(drifts: Iterable[tuple[str, ChatDrift]]) -> list[list[str]]:
    """A row under `DRIFT_HEAD` for each artifact."""
    return [
        [
            name,
            str(each.answers),
            str(each.identical),
            cells.percents(each.identical_lower, each.identical_upper),
            cells.percent(each.agreed),
            cells.percents(each.agreed_lower, each.agreed_upper),
            cells.number(each.first_difference),
        ]
        for name, each in drifts
    ]
