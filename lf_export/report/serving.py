"""The parts of a report that only a server has: what it showed of its distributions, and how it does under load."""

from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import Field

from lf_export.report import cells
from lf_export.report.parts import Count, Measured, Part, Percentiles


class ServingLevel(Part):
    """A server with so many requests under way together; the next is sent when one ends, nothing is repeated."""

    concurrency: Annotated[int, Field(ge=1)]
    requests: Count = Field(description="Requests that were sent.")
    completed: Count = Field(description="Requests that were answered to the end.")
    good: Count = Field(description="Of those, how many within both limits; goodput is this over `requests`.")
    seconds: Annotated[float, Field(ge=0, description="From the first request to the end of the last.")]
    output_tokens: Count = Field(description="Tokens of all complete answers.")
    ttft_limit: float = Field(description="Seconds to the first token.")
    tpot_limit: float = Field(description="Seconds for each token after it, on average over an answer.")
    ttft: Percentiles | None = None
    tpot: Percentiles | None = None
    ttft_seconds: list[float] = Field(default_factory=list, description="By complete request.")
    tpot_seconds: list[float] = Field(default_factory=list, description="By complete request of two tokens or more.")
    failures: dict[str, Count] = Field(default_factory=dict, description="What happened to the others, and how often.")


class ShownFidelity(Part):
    """Next-token distributions against the baseline's, from the likeliest tokens that a server shows."""

    tokens: Count
    kl_at_least_mean: Measured = Field(
        None, description="Mean KL(baseline ‖ artifact) over the shown tokens and the rest as one, nats: a lower bound."
    )
    kl_at_least_p99: Measured = None
    kl_at_least_lower: Measured = Field(
        None, description="Lower end of the 95 % cluster bootstrap interval of the mean."
    )
    kl_at_least_upper: Measured = Field(None, description="Upper end of that interval.")
    top1_agreement: Measured = Field(None, description="Share of tokens on which both prefer the same token: exact.")
    margin_unknown: Count = Field(0, description="Tokens whose preferred token was not among those shown.")
    margin_mean: Measured = Field(None, description="As in the other fidelity; not measured where any is unknown.")


Named = Sequence[tuple[str, Sequence[ServingLevel]]]


def serving_rows(named: Named) -> tuple[tuple[str, ...], list[list[str]]]:
    """The head and the rows of a table of levels, by artifact."""
    head = (
        "artifact", "concurrency", "requests/s", "tokens/s", "TTFT p50 / p90 / p99", "TPOT p50 / p90 / p99", "goodput",
        "failed",
    )  # fmt: skip
    rows = [
        [
            name,
            str(each.concurrency),
            cells.number(each.completed / each.seconds if each.seconds else None),
            cells.number(each.output_tokens / each.seconds if each.seconds else None),
            _times(each.ttft),
            _times(each.tpot),
            cells.rate(each.good, each.requests),
            str(each.requests - each.completed),
        ]
        for name, levels in named
        for each in levels
    ]
    return head, rows


def limits_text(named: Named) -> list[str]:
    """The limits of goodput in words, one line for each pair that was used."""
    limits = {(each.ttft_limit, each.tpot_limit): None for _, levels in named for each in levels}
    return [
        f"Goodput: the share of requests with a first token within {cells.milliseconds(ttft)} and "
        f"{cells.milliseconds(tpot)} for each token after it."
        for ttft, tpot in limits
    ]


def failures_text(named: Named) -> Iterator[str]:
    """What happened to requests that were not answered."""
    for name, levels in named:
        for each in levels:
            for what, count in each.failures.items():
                yield f"{name}, concurrency {each.concurrency}: {count} × {what}"  # noqa: RUF001 - the sign for "times"


def _times(found: Percentiles | None) -> str:
    if found is None:
        return cells.NOTHING
    times = (found.p50, found.p90, found.p99)
    return " / ".join(cells.number(None if time is None else 1000 * time) for time in times) + " ms"


def shown_rows(
    named: Sequence[tuple[str, Sequence[tuple[str, ShownFidelity]]]],
) -> tuple[tuple[str, ...], list[list[str]]]:
    """The head and the rows of a table of what servers showed, by artifact and token class."""
    head = ("artifact", "tokens of", "tokens", "KL at least, mean", "95 %", "KL at least, p99", "top-1", "margin")
    rows = [
        [
            name,
            kind,
            str(each.tokens),
            cells.number(each.kl_at_least_mean),
            cells.span(each.kl_at_least_lower, each.kl_at_least_upper),
            cells.number(each.kl_at_least_p99),
            cells.percent(each.top1_agreement),
            cells.number(each.margin_mean),
        ]
        for name, found in named
        for kind, each in found
    ]
    return head, rows
