"""Speeds of batches are those of all rows, and ratios have intervals over repeats."""

import math

import pytest

from lf_export.metrics.batch_latency import Cell, Run, batch_ratios, batch_speed, slower_cells


def run(first: float, gap: float, tokens: int = 5, joules: float | None = None) -> Run:
    return Run(tuple(first + gap * at for at in range(tokens)), joules)


def test_speeds_count_the_tokens_of_every_row() -> None:
    found = batch_speed(100, 4, [run(2.0, 0.5, joules=30.0), run(2.0, 0.5, joules=50.0)])
    assert found is not None
    assert found.tpot is not None
    assert (found.ttft.p50, found.tpot.p99) == (2.0, 0.5)
    assert found.prefill_tokens_per_second == pytest.approx(4 * 100 / 2)
    assert found.decode_tokens_per_second == pytest.approx(4 / 0.5)
    assert found.tokens_per_second == pytest.approx(4 * 5 / 4)
    assert (found.joules, found.joules_per_token) == (40.0, 2.0)


def test_energy_that_was_read_for_some_batches_alone_is_none() -> None:
    found = batch_speed(100, 4, [run(2.0, 0.5, joules=30.0), run(2.0, 0.5)])
    assert found is not None
    assert found.joules is None
    assert batch_speed(100, 4, []) is None


def test_ratios_are_of_pairs_so_that_what_slows_both_cancels() -> None:
    theirs = [run(factor, factor / 10, joules=10) for factor in (1, 3, 2)]
    ours = [run(1.2 * factor, factor / 20, joules=5) for factor in (1, 3, 2)]
    found = batch_ratios(Cell(8, 1, ours, theirs))
    assert found is not None
    for interval, ratio in ((found.ttft, 1.2), (found.tpot, 0.5), (found.energy, 0.5)):
        for value in (interval.estimate, interval.lower, interval.upper):
            assert value == pytest.approx(ratio)
    assert found.end_to_end.estimate == pytest.approx(1.4 / 1.4)


def test_slower_is_said_where_the_whole_interval_is_over_one() -> None:
    theirs = [run(1.0, 0.1)] * 3
    (said,) = slower_cells([Cell(512, 4, [run(1.0, gap) for gap in (0.12, 0.13, 0.14)], theirs)])
    assert said.startswith(
        "slower than the baseline at 512 prompt tokens, batch 4: each further token takes 1.30 times"
    )
    noisy = [Cell(512, 4, [run(1.0, gap) for gap in (0.05, 0.13, 0.4)], theirs)]
    assert slower_cells(noisy) == ()
    assert slower_cells([Cell(512, 4, [run(9.0, 9.0)], [run(1.0, 1.0)])]) == ()  # one repeat proves nothing
    assert slower_cells([Cell(512, 4, [run(9.0, 9.0)] * 3)]) == ()  # timed alone


def test_cells_that_were_timed_alone_have_no_ratios_and_single_tokens_no_gaps() -> None:
    assert batch_ratios(Cell(8, 1, [run(1, 1)])) is None
    found = batch_ratios(Cell(8, 1, [run(2, 1, tokens=1)] * 2, [run(1, 1, tokens=1)] * 2))
    assert found is not None
    assert (found.ttft.estimate, math.isnan(found.tpot.estimate)) == (2, True)
    speed = batch_speed(8, 1, [run(2, 1, tokens=1)])
    assert speed is not None
    assert speed.tpot is None
