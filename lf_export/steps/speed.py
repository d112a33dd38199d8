"""Measure an artifact's speed: the suite's prompts one at a time, then batches of stated sizes."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from lf_export.metrics.energy import EnergyMeter
from lf_export.metrics.latency import Latency, Times, gaps, measure
from lf_export.metrics.paired_latency import LatencyRatios, Pair, latency_ratios
from lf_export.runtimes.child import ChildSession
from lf_export.steps.interleaved import BaselineLost, Beside, time_in_turn
from lf_export.steps.latency_grid import Grid, GridFound, time_grid


@dataclass(frozen=True)
class Timing:
    """Prompts as token ids that are timed one at a time, `rounds` times each beside the baseline.

    `tokens` are written to each; `seed` draws whether baseline or artifact is first.
    """

    prompts: Sequence[Sequence[int]]
    tokens: int
    rounds: int
    seed: int


@dataclass
class Speed:
    """What was found: see `Measured`."""

    latency: Latency | None = None
    ratios: LatencyRatios | None = None
    ttft_seconds: list[float] = field(default_factory=list)
    tpot_seconds: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def time_prompts(session: ChildSession, timing: Timing, beside: Beside | None) -> Speed:
    """Time each prompt, in turn with the baseline where `beside` has room for it.

    Raises:
        ExportError: the artifact does not answer.
    """
    found, prompts = Speed(), timing.prompts
    if not prompts:
        return found
    answers: list[list[Times]]
    pairs = None if beside is None else _in_turn(session, timing, found, beside)
    if pairs is None:
        session.generate_one(prompts[0], 2)  # warm caches and kernels; not counted
        answers = [[session.generate_one(prompt, timing.tokens).times] for prompt in prompts]
    else:
        found.ratios = latency_ratios(pairs, seed=timing.seed)
        answers = [[pair.artifact for pair in rounds] for rounds in pairs]
    times = [each for rounds in answers for each in rounds]
    lengths = [len(prompt) for prompt, rounds in zip(prompts, answers, strict=True) for _ in rounds]
    found.ttft_seconds = [each[0] for each in times if each]
    found.tpot_seconds = gaps(times)
    found.latency = measure(lengths, times)
    return found


def time_batches(
    session: ChildSession, prompts: Sequence[Sequence[int]], grid: Grid, beside: Beside | None
) -> GridFound:
    """Time every cell of `grid`, in turn with the baseline where `beside` has room for it."""
    baseline = "it is not opened beside it" if beside is None else beside.session()
    found = time_grid(session, baseline, prompts, grid, EnergyMeter())
    if beside is not None and found.baseline_ended:
        beside.close()
    return found


def _in_turn(session: ChildSession, timing: Timing, found: Speed, beside: Beside) -> list[list[Pair]] | None:
    """The times of both, or None and a note where there is no room for the baseline or its process ended."""
    other = beside.session()
    if isinstance(other, str):
        why = other
    else:
        try:
            return time_in_turn(other, session, timing.prompts, timing.tokens, rounds=timing.rounds, seed=timing.seed)
        except BaselineLost as error:
            why = str(error)
            beside.close()
    found.notes.append(f"timed alone, not in turn with the baseline, so its ratios are less certain: {why}")
    return None
