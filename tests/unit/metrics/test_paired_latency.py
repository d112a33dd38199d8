"""Ratios of latency by prompt: what slows both cancels, and gaps of one answer are no independent evidence."""

import math

import numpy as np
import pytest

from lf_export.metrics.paired_latency import Pair, latency_ratios


def times(first: float, gap: float, count: int = 5) -> list[float]:
    return [first + gap * number for number in range(count)]


def test_what_slows_both_at_once_cancels() -> None:
    load = (1.0, 3.0, 0.5, 7.0)
    found = latency_ratios([[Pair(times(1.0 * slow, 0.1 * slow), times(0.5 * slow, 0.2 * slow))] for slow in load])
    assert found is not None
    for ratio, expected in ((found.ttft, 0.5), (found.tpot, 2.0), (found.end_to_end, 1.3 / 1.4)):
        assert [ratio.estimate, ratio.lower, ratio.upper] == pytest.approx([expected] * 3)


def test_more_gaps_or_rounds_of_the_same_prompts_do_not_narrow_the_interval() -> None:
    speeds = np.random.default_rng(0).uniform(0.5, 2.0, size=6)
    few, many = (
        latency_ratios([[Pair(times(1, 0.1, tokens), times(speed, 0.1 * speed, tokens))] * rounds for speed in speeds])
        for tokens, rounds in ((3, 1), (60, 8))
    )
    assert few is not None
    assert many is not None
    assert [many.tpot.lower, many.tpot.upper] == pytest.approx([few.tpot.lower, few.tpot.upper])
    assert few.tpot.upper > 1.2 * few.tpot.lower


def test_answers_of_different_lengths_are_held_against_each_other_up_to_the_shorter_one() -> None:
    found = latency_ratios([[Pair(times(1.0, 1.0, 3), times(1.0, 1.0, 9))]] * 2)
    assert found is not None
    assert found.end_to_end.estimate == pytest.approx(1.0)


def test_one_prompt_has_an_estimate_and_no_interval() -> None:
    found = latency_ratios([[Pair(times(1, 0.1), times(2, 0.1))] * 4])
    assert found is not None
    assert (found.prompts, found.rounds, found.ttft.estimate) == (1, 4, pytest.approx(2.0))
    assert math.isnan(found.ttft.lower)


def test_what_one_of_both_did_not_answer_tells_nothing() -> None:
    assert latency_ratios([[Pair([], [1.0])], [Pair([1.0], [])]]) is None
    found = latency_ratios([[Pair([1.0], [2.0])]] * 2)
    assert found is not None
    assert math.isnan(found.tpot.estimate)
