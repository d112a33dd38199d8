"""Laws of the paired statistics that hold for any counts."""

import math
from statistics import NormalDist

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lf_export.stats import PairedCounts, holm, items_for_pass, mcnemar, paired, score_statistic, tango_bounds

alphas = st.sampled_from([0.01, 0.025, 0.05, 0.1, 0.25])


@st.composite
def counts(draw: st.DrawFn) -> PairedCounts:
    both, lost, gained, neither = (draw(st.integers(0, 300)) for _ in range(4))
    assume(both + lost + gained + neither > 0)
    return PairedCounts(both + lost + gained + neither, both, lost, gained, neither)


@given(counts(), alphas)
def test_bounds_hold_the_observed_loss_and_stay_inside_the_possible(c: PairedCounts, alpha: float) -> None:
    lower, upper = tango_bounds(c, alpha)
    assert -1 <= lower <= c.loss <= upper <= 1


@given(counts(), alphas)
def test_exchanging_the_models_mirrors_the_bounds(c: PairedCounts, alpha: float) -> None:
    lower, upper = tango_bounds(c, alpha)
    assert tango_bounds(c.exchanged(), alpha) == (-upper, -lower)
    assert mcnemar(c) == mcnemar(c.exchanged())


@given(counts(), alphas)
def test_one_more_item_lost_never_lowers_a_bound(c: PairedCounts, alpha: float) -> None:
    assume(c.both > 0)
    worse = PairedCounts(c.n, c.both - 1, c.lost + 1, c.gained, c.neither)
    for before, after in zip(tango_bounds(c, alpha), tango_bounds(worse, alpha), strict=True):
        assert after >= before - 1e-12
    assert mcnemar(worse, side="loss") <= mcnemar(c, side="loss") + 1e-12


@given(counts())
def test_a_stricter_level_never_narrows_the_bounds(c: PairedCounts) -> None:
    wide, narrow = tango_bounds(c, 0.01), tango_bounds(c, 0.1)
    assert wide[0] <= narrow[0]
    assert narrow[1] <= wide[1]


@given(counts(), alphas, st.floats(-0.95, 0.95))
def test_a_loss_lies_over_the_upper_bound_exactly_when_its_test_rejects(
    c: PairedCounts, alpha: float, loss: float
) -> None:
    lower, upper = tango_bounds(c, alpha)
    assume(min(abs(loss - lower), abs(loss - upper)) > 1e-9)
    p = NormalDist().cdf(score_statistic(c, loss))
    assert (upper < loss) == (p < alpha)
    assert (lower > loss) == (1 - p < alpha)


@given(st.lists(st.tuples(st.booleans(), st.booleans())))
def test_pairs_are_all_counted(pairs: list[tuple[bool, bool]]) -> None:
    c = paired([a for a, _ in pairs], [b for _, b in pairs])
    assert c.n == len(pairs)
    assert c.both + c.lost == sum(a for a, _ in pairs)
    assert c.both + c.gained == sum(b for _, b in pairs)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_a_value_and_keeps_the_order(values: list[float]) -> None:
    adjusted = holm(values)
    assert all(a >= p or a == pytest.approx(p) for a, p in zip(adjusted, values, strict=True))
    assert max(adjusted) <= 1
    ranked = [a for _, a in sorted(zip(values, adjusted, strict=True))]
    assert ranked == sorted(ranked)


@given(st.floats(0.01, 0.2), st.floats(0, 0.3), st.sampled_from([0.5, 0.8, 0.9]))
def test_no_plan_asks_for_fewer_items_than_a_run_without_flips_needs(
    margin: float, discordance: float, power: float
) -> None:
    n = items_for_pass(margin, discordance, power=power)
    assert n is not None
    z2 = NormalDist().inv_cdf(0.95) ** 2
    assert n >= math.floor(z2 * (1 - margin) / margin)  # the closed form at zero flips
