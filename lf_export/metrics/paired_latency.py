"""Ratios of latency between an artifact and the baseline that were timed in turn on the same prompts.

Two values that were taken one after the other share the machine's state, so that what slows both cancels; the gaps
between the tokens of one answer, and the rounds of one prompt, do not count as independent evidence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lf_export.metrics.latency import Times
from lf_export.stats.bootstrap import Interval, cluster_bootstrap


@dataclass(frozen=True)
class Pair:
    """The token times of one prompt, seconds since it was asked, from two sessions right after each other."""

    baseline: Times
    artifact: Times


@dataclass(frozen=True)
class LatencyRatios:
    """The artifact's times over the baseline's: geometric means over pairs, intervals of 95 % clustered by prompt.

    Attributes:
        prompts: prompts with a pair that both answered.
        rounds: the most pairs that a prompt has.
        ttft: of the time to the first token.
        tpot: of the median gap between two tokens of an answer; nan where no answer has two tokens.
        end_to_end: of the time to the last token that both answers have.
    """

    prompts: int
    rounds: int
    ttft: Interval
    tpot: Interval
    end_to_end: Interval


def latency_ratios(pairs: Sequence[Sequence[Pair]], *, seed: int = 0) -> LatencyRatios | None:
    """The ratios of `pairs`, one sequence of rounds a prompt; None where no pair was answered by both.

    The bounds are nan where fewer than two prompts tell something: one prompt says nothing of another.
    """
    both = [[pair for pair in rounds if len(pair.baseline) and len(pair.artifact)] for rounds in pairs]
    filled = [rounds for rounds in both if rounds]
    if not filled:
        return None
    found = {
        "ttft": [_logs([(pair.artifact[0], pair.baseline[0]) for pair in rounds]) for rounds in filled],
        "tpot": [
            _logs(
                [
                    (_gap(pair.artifact), _gap(pair.baseline))
                    for pair in rounds
                    if len(pair.artifact) > 1 and len(pair.baseline) > 1
                ]
            )
            for rounds in filled
        ],
        "end_to_end": [_logs([_whole(pair) for pair in rounds]) for rounds in filled],
    }
    ratios = {name: _exponent(cluster_bootstrap(logs, seed=seed)) for name, logs in found.items()}
    return LatencyRatios(len(filled), max(map(len, filled)), ratios["ttft"], ratios["tpot"], ratios["end_to_end"])


def _gap(times: Times) -> float:
    return float(np.median(np.diff(times)))


def _whole(pair: Pair) -> tuple[float, float]:
    common = min(len(pair.artifact), len(pair.baseline)) - 1
    return pair.artifact[common], pair.baseline[common]


def _logs(ratios: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    """Logarithms of the ratios; one whose clock did not move between two tokens tells nothing."""
    return np.log([ours / theirs for ours, theirs in ratios if ours > 0 and theirs > 0])


def _exponent(interval: Interval) -> Interval:
    return Interval(*(float(np.exp(each)) for each in (interval.estimate, interval.lower, interval.upper)))
