"""A server under load: throughput, TTFT and TPOT at a concurrency, and how many requests were fast enough."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lf_export.metrics.latency import Percentiles, Times, percentiles


@dataclass(frozen=True)
class Limits:
    """What counts as fast enough, in seconds: to the first token, and for each token after it on average."""

    ttft: float
    tpot: float


@dataclass(frozen=True)
class Level:
    """What a server did with so many requests under way together.

    Attributes:
        concurrency: requests under way together; the next is sent when one ends.
        requests: how many were sent in all.
        completed: how many were answered to the end.
        good: how many of those within both limits; goodput is this over all requests.
        seconds: from the first request to the end of the last.
        output_tokens: tokens of all complete answers.
        ttft_limit: the stated limits, seconds.
        tpot_limit: likewise.
        ttft: time to first token, seconds; None where nothing was answered.
        tpot: the mean time of each token after the first, by request; None where no answer has two tokens.
        ttft_seconds: by request.
        tpot_seconds: by request with two tokens or more.
        failures: what happened to the others, in words, and how often.
    """

    concurrency: int
    requests: int
    completed: int
    good: int
    seconds: float
    output_tokens: int
    ttft_limit: float
    tpot_limit: float
    ttft: Percentiles | None
    tpot: Percentiles | None
    ttft_seconds: tuple[float, ...]
    tpot_seconds: tuple[float, ...]
    failures: Mapping[str, int]


def level(concurrency: int, answered: Sequence[Times | str], seconds: float, limits: Limits) -> Level:
    """Summarize requests: the time of each token of an answer, or in words why there is none.

    Source: goodput as in DistServe (https://arxiv.org/abs/2401.09670): requests that meet both limits. One that was
    not answered is not good.
    """
    times = [each for each in answered if not isinstance(each, str) and each]
    first = [each[0] for each in times]
    each_token = [token_time(each) for each in times]
    known = [value for value in each_token if value is not None]
    good = sum(
        ttft <= limits.ttft and (tpot is None or tpot <= limits.tpot)
        for ttft, tpot in zip(first, each_token, strict=True)
    )
    return Level(
        concurrency=concurrency,
        requests=len(answered),
        completed=len(times),
        good=good,
        seconds=seconds,
        output_tokens=sum(map(len, times)),
        ttft_limit=limits.ttft,
        tpot_limit=limits.tpot,
        ttft=percentiles(first) if first else None,
        tpot=percentiles(known) if known else None,
        ttft_seconds=tuple(first),
        tpot_seconds=tuple(known),
        failures=Counter(
            each if isinstance(each, str) else "nothing" for each in answered if not each or isinstance(each, str)
        ),
    )


def token_time(times: Times) -> float | None:
    """The mean seconds of each token after the first; None where there is none."""
    return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else None
