"""Latency of an artifact over the baseline's, where both were timed in turn."""

from pydantic import Field

from lf_export.report.parts import Count, Measured, Part


class Ratio(Part):
    """A geometric mean of ratios with its 95 % interval, clustered by prompt; under 1 is faster than the baseline."""

    estimate: Measured
    lower: Measured = Field(description="None for fewer than two prompts.")
    upper: Measured = Field(description="None for fewer than two prompts.")


class LatencyRatios(Part):
    """Same prompts, in turn: baseline, artifact, artifact, baseline."""

    prompts: Count = Field(description="Prompts that both answered.")
    rounds: Count = Field(description="How often each was timed in both.")
    ttft: Ratio = Field(description="Time to first token.")
    tpot: Ratio = Field(description="Median time between two tokens of an answer.")
    end_to_end: Ratio = Field(description="Time to the last token that both answers have.")


def ratio_rows(named: list[tuple[str, LatencyRatios]]) -> list[list[str]]:
    """A row an artifact: its name, prompts and rounds, and each ratio with its interval."""
    return [
        [name, f"{each.prompts} × {each.rounds}", *map(ratio_text, (each.ttft, each.tpot, each.end_to_end))]  # noqa: RUF001 - a sign of multiplication
        for name, each in named
    ]


def ratio_text(found: Ratio) -> str:
    """A ratio with its interval, where it has one."""
    if found.estimate is None:
        return "–"  # noqa: RUF001 - a dash
    if found.lower is None or found.upper is None:
        return f"{found.estimate:.2f}"
    return f"{found.estimate:.2f} ({found.lower:.2f} to {found.upper:.2f})"
