"""Latency comes from the time of each token, never from a difference of totals."""

import pytest

from lf_export.metrics.latency import measure, percentiles


def test_first_tokens_and_gaps_are_told_apart() -> None:
    found = measure([10, 30], [[0.5, 0.6, 0.8], [1.5, 1.6]])
    assert found is not None
    assert found.ttft.p50 == pytest.approx(1.0)
    assert found.tpot.p50 == pytest.approx(0.1)
    assert found.tpot.p99 == pytest.approx(0.1 + 0.98 * 0.1)
    assert found.prefill_tokens_per_second == pytest.approx(40 / 2.0)
    assert found.decode_tokens_per_second == pytest.approx(3 / 0.4)
    assert found.prompts == 2


def test_answers_of_one_token_give_no_time_per_token() -> None:
    assert measure([4], [[0.5]]) is None
    assert measure([], []) is None


def test_percentiles_interpolate() -> None:
    assert percentiles([0.0, 1.0]).p90 == pytest.approx(0.9)
