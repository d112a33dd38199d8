"""Latency from the time of each token: TTFT, time per output token, tokens per second."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Times = Sequence[float]


@dataclass(frozen=True)
class Percentiles:
    """p50, p90 and p99 of a sample, in the sample's unit (linear interpolation)."""

    p50: float
    p90: float
    p99: float


@dataclass(frozen=True)
class Latency:
    """Batch 1, nothing shared between prompts.

    Attributes:
        prompts: how many answers were timed, after one that was not.
        prompt_tokens: their mean length.
        ttft: time to first token, seconds.
        tpot: the gap between two tokens of an answer, seconds, over all gaps.
        prefill_tokens_per_second: prompt tokens over the sum of times to first token.
        decode_tokens_per_second: gaps over their sum.
    """

    prompts: int
    prompt_tokens: float
    ttft: Percentiles
    tpot: Percentiles
    prefill_tokens_per_second: float
    decode_tokens_per_second: float


def percentiles(values: Sequence[float]) -> Percentiles:
    """p50, p90, p99 of `values`, which are not empty."""
    p50, p90, p99 = np.percentile(np.asarray(values, dtype=np.float64), [50, 90, 99])
    return Percentiles(float(p50), float(p90), float(p99))


def gaps(times: Sequence[Times]) -> list[float]:
    """The seconds between each two tokens that follow one another in an answer, over all answers."""
    return [late - early for each in times for early, late in itertools.pairwise(each)]


def measure(prompt_lengths: Sequence[int], times: Sequence[Times]) -> Latency | None:
    """Latency of answers whose token times are `times`; None where no answer has two tokens."""
    answered = [(length, each) for length, each in zip(prompt_lengths, times, strict=True) if each]
    first = [each[0] for _, each in answered]
    between = gaps(times)
    if not between:
        return None
    lengths = [length for length, _ in answered]
    return Latency(
        prompts=len(answered),
        prompt_tokens=float(np.mean(lengths)),
        ttft=percentiles(first),
        tpot=percentiles(between),
        prefill_tokens_per_second=sum(lengths) / sum(first),
        decode_tokens_per_second=len(between) / sum(between),
    )
