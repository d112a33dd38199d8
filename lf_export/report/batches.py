"""Speed at stated prompt lengths and batch sizes."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from lf_export.report import cells
from lf_export.report.latency import Ratio, ratio_text
from lf_export.report.parts import Count, Measured, Part, Percentiles

Positive = Annotated[int, Field(ge=1)]


class BatchSpeed(Part):
    """Prompts of one length, decoded together to the same number of tokens, nothing shared."""

    ttft: Percentiles = Field(description="Until every row has its first token, over repeats.")
    tpot: Percentiles | None = Field(None, description="Between two tokens of a row, over all gaps.")
    prefill_tokens_per_second: Measured = None
    decode_tokens_per_second: Measured = Field(None, description="Tokens after the first of all rows together.")
    tokens_per_second: Measured = Field(None, description="All tokens that were written over the whole time.")
    joules: Measured = Field(None, description="Of the whole machine, a batch; None where it does not tell.")
    joules_per_token: Measured = Field(None, description="Over the tokens that were written.")


class BatchCell(Part):
    """One prompt length and batch size."""

    prompt_length: Positive
    batch_size: Positive
    why: str = Field("", description="Why nothing was timed, or not in turn with the baseline.")
    artifact: BatchSpeed | None = None
    baseline: BatchSpeed | None = Field(None, description="Of the same prompts, in turn with the artifact.")
    ttft: Ratio | None = Field(None, description="Ratios to the baseline; None where it was not timed.")
    tpot: Ratio | None = None
    end_to_end: Ratio | None = Field(None, description="Of the whole batch.")
    energy: Ratio | None = Field(None, description="Of joules; None where they were not measured.")
    artifact_times: list[list[float]] = Field(
        default_factory=list, description="Seconds to each token, a list for each repeat."
    )
    baseline_times: list[list[float]] = Field(default_factory=list)


class LatencyGrid(Part):
    """Every prompt length with every batch size; intervals of 95 % by Student's t over repeats."""

    new_tokens: Positive = Field(description="Tokens written to each prompt; end tokens do not end it.")
    warmup: Count = Field(description="Batches before each cell that do not count.")
    repeats: Positive
    energy: Literal["measured", "not readable", "not available"] = Field(
        description="Whether the processor's counters (RAPL) told the energy."
    )
    cells: list[BatchCell]


def grid_rows(named: Sequence[tuple[str, LatencyGrid]]) -> tuple[tuple[str, ...], list[list[str]]]:
    """The head and the rows of a table of cells, by artifact."""
    head = (
        "artifact", "prompt × batch", "TTFT p50 / p90 / p99, ms", "TPOT p50 / p90 / p99, ms", "prefill tok/s",  # noqa: RUF001 - a sign of multiplication
        "decode tok/s", "tok/s", "TTFT, of baseline", "TPOT, of baseline", "whole, of baseline", "J per token",
    )  # fmt: skip
    rows = [[name, _place(each), *_cell(each)] for name, grid in named for each in grid.cells]
    return head, rows


def grid_text(named: Sequence[tuple[str, LatencyGrid]]) -> list[str]:
    """What has to be said of the cells: how they were timed, whether energy was, and why some are empty."""
    said: dict[str, None] = {}
    for _, grid in named:
        said[
            f"Each cell: {grid.repeats} batches of prompts of exactly that length, {grid.new_tokens} tokens written to "
            f"each, after {grid.warmup} that did not count; in turn with the baseline where a ratio is given, with its "
            "95 % interval."
        ] = None
        words = {
            "measured": "Energy is the processor's own count of the whole machine's, idle power included.",
            "not readable": "Energy: the processor's counters are not readable for this user.",
            "not available": "Energy: not available, the machine shows no counters.",
        }
        said[words[grid.energy]] = None
    reasons: dict[tuple[str, str], list[str]] = {}
    for name, grid in named:
        for each in grid.cells:
            if each.why:
                reasons.setdefault((name, each.why), []).append(_place(each))
    return [*said, *(f"{name}, {', '.join(places)}: {why}" for (name, why), places in reasons.items())]


def _place(each: BatchCell) -> str:
    return f"{each.prompt_length} × {each.batch_size}"  # noqa: RUF001 - a sign of multiplication


def _cell(each: BatchCell) -> list[str]:
    found = each.artifact
    if found is None:
        return [cells.NOTHING] * 9
    speeds = (found.prefill_tokens_per_second, found.decode_tokens_per_second, found.tokens_per_second)
    ratios = (each.ttft, each.tpot, each.end_to_end)
    return [
        _times(found.ttft),
        _times(found.tpot),
        *(cells.number(speed) for speed in speeds),
        *(cells.NOTHING if ratio is None else ratio_text(ratio) for ratio in ratios),
        cells.number(found.joules_per_token),
    ]


def _times(found: Percentiles | None) -> str:
    if found is None:
        return cells.NOTHING
    return " / ".join(cells.number(None if t is None else 1000 * t) for t in (found.p50, found.p90, found.p99))
