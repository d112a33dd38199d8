"""Times of whole batches at a stated prompt length and batch size, and their ratios to the baseline's."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lf_export.metrics.latency import Percentiles, Times, gaps, percentiles
from lf_export.stats import Interval, mean_interval


@dataclass(frozen=True)
class Run:
    """One batch, decoded together.

    Attributes:
        times: seconds from its start until every row had its first, second, … token.
        joules: of the whole machine meanwhile, None where it does not tell.
    """

    times: Times
    joules: float | None = None


@dataclass(frozen=True)
class Cell:
    """What was found at one prompt length and batch size.

    Attributes:
        prompt_length: tokens of each prompt.
        batch_size: prompts together.
        runs: the artifact's, one a repeat, each on prompts of its own; empty where `why` says why.
        baseline: the baseline's of the same repeats; empty where it was not timed.
        why: in words why there are no runs, or none of the baseline's.
    """

    prompt_length: int
    batch_size: int
    runs: Sequence[Run] = ()
    baseline: Sequence[Run] = ()
    why: str = ""


@dataclass(frozen=True)
class BatchSpeed:
    """Speed of a cell's batches.

    Attributes:
        ttft: seconds until every row has its first token, over repeats.
        tpot: seconds between two tokens of a row, over all gaps of all repeats.
        prefill_tokens_per_second: prompt tokens of all rows over the sum of these times.
        decode_tokens_per_second: further tokens of all rows over the time they took; nan where there are none.
        tokens_per_second: all tokens that were written over the whole time: the throughput.
        joules: a batch, on average; None where the machine does not tell.
        joules_per_token: over the tokens that were written.
    """

    ttft: Percentiles
    tpot: Percentiles | None
    prefill_tokens_per_second: float
    decode_tokens_per_second: float
    tokens_per_second: float
    joules: float | None
    joules_per_token: float | None


@dataclass(frozen=True)
class BatchRatios:
    """The artifact's over the baseline's: geometric means over repeats, 95 % by Student's t on their logarithms.

    Attributes:
        ttft: until every row has its first token.
        tpot: the median time between two tokens.
        end_to_end: the whole batch.
        energy: joules; nan where they were not measured.
    """

    ttft: Interval
    tpot: Interval
    end_to_end: Interval
    energy: Interval


def batch_speed(prompt_length: int, batch_size: int, runs: Sequence[Run]) -> BatchSpeed | None:
    """The speed over `runs`; None where there are none."""
    times = [run.times for run in runs if run.times]
    if not times:
        return None
    between = gaps(times)
    first, whole = sum(each[0] for each in times), sum(each[-1] for each in times)
    written = batch_size * sum(map(len, times))
    used = [run.joules for run in runs if run.joules is not None]
    measured = len(used) == len(times)
    return BatchSpeed(
        ttft=percentiles([each[0] for each in times]),
        tpot=percentiles(between) if between else None,
        prefill_tokens_per_second=_over(prompt_length * batch_size * len(times), first),
        decode_tokens_per_second=_over(batch_size * len(between), sum(between)),
        tokens_per_second=_over(written, whole),
        joules=sum(used) / len(used) if measured else None,
        joules_per_token=sum(used) / written if measured else None,
    )


def batch_ratios(cell: Cell) -> BatchRatios | None:
    """The ratios of a cell whose batches were timed in turn with the baseline's; None where they were not."""
    pairs = list(zip(cell.runs, cell.baseline, strict=False))
    if not pairs:
        return None

    def ratio(of: Callable[[Run], float | None]) -> Interval:
        found = [(of(ours), of(theirs)) for ours, theirs in pairs]
        logs = [math.log(ours / theirs) for ours, theirs in found if ours and theirs]
        interval = mean_interval(logs)
        return Interval(*(math.exp(each) for each in (interval.estimate, interval.lower, interval.upper)))

    return BatchRatios(
        ttft=ratio(lambda run: run.times[0]),
        tpot=ratio(lambda run: float(np.median(np.diff(run.times))) if len(run.times) > 1 else None),
        end_to_end=ratio(lambda run: run.times[-1]),
        energy=ratio(lambda run: run.joules),
    )


def slower_cells(cells: Sequence[Cell]) -> tuple[str, ...]:
    """What the artifact is slower at than the baseline, a sentence each: the ratio's whole interval is over 1."""
    said = []
    for cell in cells:
        found = batch_ratios(cell)
        if found is None:
            continue
        named = (("the first token takes", found.ttft), ("each further token takes", found.tpot))
        said += [
            f"slower than the baseline at {cell.prompt_length} prompt tokens, batch {cell.batch_size}: {words} "
            f"{each.estimate:.2f} times as long ({each.lower:.2f} to {each.upper:.2f})"
            for words, each in named
            if each.lower > 1
        ]
    return tuple(said)


def _over(count: float, seconds: float) -> float:
    return count / seconds if seconds > 0 else math.nan
