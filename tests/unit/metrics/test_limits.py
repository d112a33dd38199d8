"""Limits on what an artifact costs: ratios to the baseline, with intervals where there is noise."""

import math
import random
import re

import pytest

from lf_export.metrics.gate import Verdict
from lf_export.metrics.limits import Costs, LimitName, LimitVerdict, checked_limits, judge_limits, slower
from lf_export.metrics.paired_latency import LatencyRatios
from lf_export.stats.bootstrap import Interval


def noisy(mean: float, count: int = 200, seed: int = 0) -> list[float]:
    rng = random.Random(seed)  # noqa: S311
    return [mean * rng.uniform(0.8, 1.2) for _ in range(count)]


def judged(name: LimitName, limit: float, baseline: Costs, artifact: Costs) -> LimitVerdict:
    (found,) = judge_limits({name: limit}, baseline, artifact)
    return found


@pytest.mark.parametrize(("limit", "verdict"), [(0.5, Verdict.FAIL), (0.7, Verdict.INCONCLUSIVE), (0.9, Verdict.PASS)])
def test_a_time_is_judged_by_the_interval_of_the_ratio_of_medians(limit: float, verdict: Verdict) -> None:
    found = judged("tpot", limit, Costs(tpot=noisy(0.010)), Costs(tpot=noisy(0.007, seed=1)))
    assert found.verdict is verdict
    assert found.ratio == pytest.approx(0.7, abs=0.05)
    assert found.lower is not None
    assert found.upper is not None
    assert found.lower < found.ratio < found.upper


@pytest.mark.parametrize(("disk", "verdict"), [(250, Verdict.PASS), (251, Verdict.FAIL)])
def test_a_size_has_no_noise(disk: int, verdict: Verdict) -> None:
    found = judged("disk", 0.25, Costs(disk=1000), Costs(disk=disk))
    assert (found.verdict, found.lower, found.upper) == (verdict, disk / 1000, disk / 1000)


def test_more_values_narrow_the_interval() -> None:
    few, many = (
        judged("ttft", 1.0, Costs(ttft=noisy(1, count)), Costs(ttft=noisy(1, count, seed=1))) for count in (10, 1000)
    )
    assert few.lower is not None and few.upper is not None and many.lower is not None and many.upper is not None  # noqa: PT018
    assert many.upper - many.lower < (few.upper - few.lower) / 3


@pytest.mark.parametrize("name", ["ttft", "tpot", "disk", "memory", "load"])
def test_what_was_not_measured_is_never_a_pass(name: LimitName) -> None:
    found = judged(name, 1.0, Costs(), Costs())
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.reason == f"{name} cannot be judged: it was not measured"


def test_the_speed_of_a_stand_in_is_not_judged_but_its_size_is() -> None:
    baseline, artifact = Costs(tpot=[0.01], disk=8), Costs(tpot=[0.001], disk=2, representative=False)
    speed, size = judge_limits({"tpot": 1.0, "disk": 0.5}, baseline, artifact)
    assert speed.verdict is Verdict.INCONCLUSIVE
    assert "says nothing about a deployment" in speed.reason
    assert size.verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("limits", "message"), [({"vram": 1.0}, "unknown limits vram"), ({"disk": 0.0}, "above 0, not disk 0")]
)
def test_limits_that_mean_nothing_are_refused(limits: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked_limits(limits)


def test_what_is_slower_beyond_noise_is_said_with_its_interval() -> None:
    (said,) = slower(
        Costs(ttft=noisy(1.0), tpot=noisy(0.010)), Costs(ttft=noisy(0.9, seed=1), tpot=noisy(0.013, seed=1))
    )
    told = r"slower than the baseline: each further token takes 1\.[23]\d times as long \(1\.\d\d to 1\.\d\d\)"
    assert re.fullmatch(told, said)


@pytest.mark.parametrize(
    "artifact",
    [
        Costs(ttft=noisy(0.7, seed=1)),
        Costs(ttft=noisy(1.0, 8, seed=5)),  # 1.11 times as long, and the interval holds 1
        Costs(ttft=noisy(2.0), representative=False),
        Costs(),
    ],
)
def test_nothing_is_said_of_the_faster_the_uncertain_the_unrepresentative_and_the_unmeasured(artifact: Costs) -> None:
    assert slower(Costs(ttft=noisy(1.0, 8), tpot=noisy(0.01)), artifact) == ()


def ratios(ttft: Interval, tpot: Interval) -> LatencyRatios:
    return LatencyRatios(prompts=4, rounds=2, ttft=ttft, tpot=tpot, end_to_end=tpot)


def test_times_taken_in_turn_are_judged_by_their_own_interval() -> None:
    in_turn = ratios(Interval(1.2, 0.9, 1.5), Interval(1.1, 1.05, 1.2))
    baseline, artifact = Costs(ttft=noisy(1), tpot=noisy(1)), Costs(ttft=noisy(9), tpot=noisy(9), ratios=in_turn)
    assert judged("ttft", 1.0, baseline, artifact).verdict is Verdict.INCONCLUSIVE
    assert judged("tpot", 1.0, baseline, artifact).verdict is Verdict.FAIL
    assert judged("tpot", 1.2, baseline, artifact).verdict is Verdict.PASS
    assert slower(baseline, artifact) == (
        "slower than the baseline: each further token takes 1.10 times as long (1.05 to 1.20)",
    )


def test_one_prompt_timed_in_turn_is_never_a_pass() -> None:
    alone = Interval(0.1, math.nan, math.nan)
    found = judged("tpot", 1.0, Costs(), Costs(ratios=ratios(alone, alone)))
    assert (found.verdict, found.lower) == (Verdict.INCONCLUSIVE, None)
    assert "one prompt gives no interval" in found.reason
