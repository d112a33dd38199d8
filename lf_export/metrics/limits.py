"""Limits on latency, size and memory, as ratios to the baseline; what is noisy is judged by an interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from lf_export.metrics.gate import Verdict
from lf_export.metrics.paired_latency import LatencyRatios

LimitName = Literal["ttft", "tpot", "disk", "memory", "load"]

_RESAMPLES = 2000


@dataclass(frozen=True)
class Costs:
    """What an artifact costs; None or empty where it was not measured.

    Attributes:
        ttft: seconds to the first token, one value a prompt.
        tpot: seconds between two tokens, one value a gap.
        disk: bytes.
        memory: peak bytes.
        load: seconds.
        ratios: to the baseline where both were timed in turn; judged in place of `ttft` and `tpot`.
        representative: whether the times and the memory say something about a deployment.
    """

    ttft: Sequence[float] = ()
    tpot: Sequence[float] = ()
    disk: float | None = None
    memory: float | None = None
    load: float | None = None
    representative: bool = True
    ratios: LatencyRatios | None = None


@dataclass(frozen=True)
class LimitVerdict:
    """One limit. `ratio` is artifact over baseline, for times see `judge_limits`; the interval has 95 %."""

    name: LimitName
    limit: float
    ratio: float | None
    lower: float | None
    upper: float | None
    verdict: Verdict
    reason: str


def checked_limits(limits: Mapping[str, float]) -> dict[LimitName, float]:
    """Limits by names that are known.

    Raises:
        ValueError: names one that is not, or a limit that is not above 0.
    """
    known: tuple[LimitName, ...] = get_args(LimitName)
    if unknown := sorted(limits.keys() - set(known)):
        raise ValueError(f"unknown limits {', '.join(unknown)}; known are {', '.join(known)}")
    if wrong := [f"{name} {limit:g}" for name, limit in limits.items() if not limit > 0]:
        raise ValueError(f"a limit is a ratio above 0, not {', '.join(wrong)}")
    return {name: limits[name] for name in known if name in limits}


def judge_limits(
    limits: Mapping[LimitName, float], baseline: Costs, artifact: Costs, *, seed: int = 0
) -> tuple[LimitVerdict, ...]:
    """Hold an artifact's costs against the limits, each the largest ratio to the baseline that is accepted.

    PASS when the ratio's interval lies at or under the limit, FAIL when it lies over it, INCONCLUSIVE between, and
    where the ratio was not measured. Times that were taken in turn with the baseline's have the interval of their
    ratios by prompt; times that were taken apart have one of medians, which takes each gap as independent. Sizes have
    no noise: their interval is the ratio itself.
    """
    return tuple(_judge(name, limit, baseline, artifact, seed) for name, limit in limits.items())


def slower(baseline: Costs, artifact: Costs, *, seed: int = 0) -> tuple[str, ...]:
    """What an artifact is slower at than the baseline, a sentence each: the ratio's whole interval is over 1.

    Nothing is said of a runtime that is not representative, and nothing where the interval holds 1.
    """
    if not (baseline.representative and artifact.representative):
        return ()
    said = []
    for name, words in (("ttft", "the first token takes"), ("tpot", "each further token takes")):
        found = _ratio_of_times(name, artifact, baseline, seed)
        if found and found[1] > 1:
            ratio, lower, upper = found
            said.append(f"slower than the baseline: {words} {ratio:.2f} times as long ({lower:.2f} to {upper:.2f})")
    return tuple(said)


def _judge(name: LimitName, limit: float, baseline: Costs, artifact: Costs, seed: int) -> LimitVerdict:
    if name != "disk" and not (baseline.representative and artifact.representative):
        return _unmeasured(name, limit, "its runtime here says nothing about a deployment")
    if name in {"ttft", "tpot"}:
        found = _ratio_of_times(name, artifact, baseline, seed)
    else:
        ours, theirs = getattr(artifact, name), getattr(baseline, name)
        found = (ours / theirs,) * 3 if ours and theirs else None
    if found is None:
        return _unmeasured(name, limit, "it was not measured")
    ratio, lower, upper = found
    if np.isnan(lower):
        return _unmeasured(name, limit, "one prompt gives no interval, expected two or more")
    verdict = Verdict.FAIL if lower > limit else Verdict.PASS if upper <= limit else Verdict.INCONCLUSIVE
    shown = f"{ratio:.2f} times the baseline's"
    if lower != upper:
        shown += f" ({lower:.2f} to {upper:.2f})"
    words = {Verdict.PASS: "at most", Verdict.FAIL: "over the", Verdict.INCONCLUSIVE: "perhaps over the"}
    reason = f"{name} is {shown}, {words[verdict]} {limit:g} accepted"
    return LimitVerdict(name, limit, ratio, lower, upper, verdict, reason)


def _unmeasured(name: LimitName, limit: float, why: str) -> LimitVerdict:
    return LimitVerdict(name, limit, None, None, None, Verdict.INCONCLUSIVE, f"{name} cannot be judged: {why}")


def _ratio_of_times(name: str, artifact: Costs, baseline: Costs, seed: int) -> tuple[float, float, float] | None:
    if artifact.ratios is None:
        return _ratio_of_medians(getattr(artifact, name), getattr(baseline, name), seed)
    found = getattr(artifact.ratios, name)
    return None if np.isnan(found.estimate) else (found.estimate, found.lower, found.upper)


def _ratio_of_medians(ours: Sequence[float], theirs: Sequence[float], seed: int) -> tuple[float, float, float] | None:
    """The ratio and its percentile bootstrap interval, None without values; both samples are drawn by themselves."""
    if not len(ours) or not len(theirs):
        return None
    rng = np.random.default_rng(seed)
    medians = [
        np.median(values[rng.integers(len(values), size=(_RESAMPLES, len(values)))], axis=1)
        for values in (np.asarray(ours), np.asarray(theirs))
    ]
    lower, upper = np.quantile(medians[0] / medians[1], [0.025, 0.975])
    return float(np.median(ours) / np.median(theirs)), float(lower), float(upper)
