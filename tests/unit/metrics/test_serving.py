import pytest

from lf_export.metrics.serving import Limits, level, token_time

LIMITS = Limits(ttft=0.5, tpot=0.1)


def test_goodput_counts_requests_within_both_limits_over_all_that_were_sent() -> None:
    answered = [
        (0.4, 0.5, 0.6),  # good
        (0.6, 0.65),  # first token too late
        (0.4, 0.6, 0.7),  # 0.15 s a token
        (0.4,),  # good: there is no token after the first
        "HTTP 429",
    ]
    found = level(4, answered, 2.0, LIMITS)
    assert (found.concurrency, found.requests, found.completed, found.good) == (4, 5, 4, 2)
    assert found.output_tokens == 9
    assert found.failures == {"HTTP 429": 1}
    assert found.ttft_seconds == (0.4, 0.6, 0.4, 0.4)
    assert found.tpot_seconds == pytest.approx((0.1, 0.05, 0.15))
    assert found.tpot is not None
    assert found.tpot.p50 == pytest.approx(0.1)


def test_where_nothing_was_answered_there_are_no_times() -> None:
    found = level(2, ["refused", "refused", ()], 1.0, LIMITS)
    assert (found.completed, found.good, found.ttft, found.tpot) == (0, 0, None, None)
    assert found.failures == {"refused": 2, "nothing": 1}


def test_a_limit_that_is_met_exactly_is_met() -> None:
    assert level(1, [(0.5, 0.6)], 1.0, Limits(0.5, 0.1 + 1e-12)).good == 1


def test_the_time_of_a_token_is_the_mean_after_the_first() -> None:
    assert token_time((1.0, 1.2, 2.0)) == pytest.approx(0.5)
    assert token_time((1.0,)) is None
