import math

import numpy as np
import pytest

from lf_export.stats import PairedCounts, items_for_pass, mcnemar, paired, score_statistic, tango_bounds


def flips(n: int, lost: int, gained: int) -> PairedCounts:
    return PairedCounts(n, n - lost - gained, lost, gained, 0)


def test_paired_counts_the_four_ways_two_verdicts_can_meet() -> None:
    counts = paired([True, True, True, False, False], [True, False, False, True, False])
    assert counts == PairedCounts(n=5, both=1, lost=2, gained=1, neither=1)
    assert counts.loss == pytest.approx(0.2)
    assert counts.discordance == pytest.approx(0.6)
    assert counts.baseline_rate == pytest.approx(0.6)
    assert counts.candidate_rate == pytest.approx(0.4)
    assert counts.exchanged() == PairedCounts(n=5, both=1, lost=1, gained=2, neither=1)


def test_verdicts_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        paired([True, False], [True])


@pytest.mark.parametrize("parts", [(5, 1, 1, 1, 1), (0, 1, -1, 0, 0)])
def test_counts_that_do_not_add_up_are_refused(parts: tuple[int, int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="do not add up"):
        PairedCounts(*parts)


@pytest.mark.parametrize(("margin", "n"), [(0.05, 52), (0.03, 88), (0.02, 133), (0.01, 268)])
def test_without_flips_a_margin_is_reached_at_a_known_number_of_items(margin: float, n: int) -> None:
    assert tango_bounds(flips(n, 0, 0))[1] < margin
    assert tango_bounds(flips(n - 1, 0, 0))[1] > margin
    assert items_for_pass(margin, discordance=0.0) == n


def test_no_flips_do_not_collapse_the_bounds() -> None:
    lower, upper = tango_bounds(flips(100, 0, 0))
    assert lower == pytest.approx(-upper)
    # z²/(n + z²) in closed form, z = 1.6449
    assert upper == pytest.approx(0.026343, abs=1e-6)


def test_bounds_of_a_published_table_are_reproduced() -> None:
    # Tango 1998, table of the crossover trial of soft contact lens disinfection: n = 44, 43 agreeing pairs and one flip
    # that favours one system; two-sided 90 % interval -0.096 to 0.037 about the estimate -0.023.
    lower, upper = tango_bounds(PairedCounts(n=44, both=43, lost=0, gained=1, neither=0))
    assert (round(lower, 3), round(upper, 3)) == (-0.096, 0.037)


@pytest.mark.parametrize("loss", [1e-200, -1e-200, 5e-324, -5e-324])
def test_a_loss_next_to_nothing_is_not_rejected(loss: float) -> None:
    assert score_statistic(flips(20, 0, 0), loss) == pytest.approx(0, abs=1e-6)


def test_no_items_bound_nothing() -> None:
    assert tango_bounds(PairedCounts(0, 0, 0, 0, 0)) == (-1.0, 1.0)
    assert math.isnan(PairedCounts(0, 0, 0, 0, 0).loss)
    assert score_statistic(PairedCounts(0, 0, 0, 0, 0), 0.03) == 0


def test_everything_lost_or_gained_is_bounded_at_the_end() -> None:
    assert tango_bounds(flips(30, 30, 0))[1] == 1.0
    assert tango_bounds(flips(30, 30, 0))[0] < 1.0
    assert tango_bounds(flips(30, 0, 30))[0] == -1.0


@pytest.mark.parametrize("alpha", [0.0, 0.5, -0.1, 1.0])
def test_a_level_outside_its_range_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        tango_bounds(flips(10, 1, 0), alpha)


def test_mcnemar_is_the_exact_binomial_test_on_the_flips() -> None:
    assert mcnemar(flips(100, 8, 2)) == pytest.approx(2 * (45 + 10 + 1) / 1024)
    assert mcnemar(flips(100, 8, 2), side="loss") == pytest.approx((45 + 10 + 1) / 1024)
    assert mcnemar(flips(100, 2, 8), side="loss") == pytest.approx(1 - (10 + 1) / 1024)


def test_mcnemar_without_flips_or_with_balanced_flips_says_one() -> None:
    assert mcnemar(flips(50, 0, 0)) == 1.0
    assert mcnemar(flips(50, 0, 0), side="loss") == 1.0
    assert mcnemar(flips(50, 4, 4)) == 1.0


def test_items_for_pass_agrees_with_simulated_runs() -> None:
    margin, discordance, power = 0.03, 0.05, 0.8
    n = items_for_pass(margin, discordance, power=power)
    assert n is not None
    half = discordance / 2
    runs = np.random.default_rng(7).multinomial(n, [half, half, 1 - discordance], size=1000)
    accepted = sum(tango_bounds(flips(n, int(lost), int(gained)))[1] < margin for lost, gained, _ in runs)
    # three standard errors of a share near 0.8 over 1,000 runs, plus 0.02 for whole flips
    assert accepted / len(runs) == pytest.approx(power, abs=0.06)


def test_a_loss_at_the_margin_can_never_pass() -> None:
    assert items_for_pass(0.03, discordance=0.05, loss=0.03) is None


def test_more_discordance_more_power_and_less_margin_need_more_items() -> None:
    def needed(margin: float = 0.03, discordance: float = 0.05, power: float = 0.8) -> int:
        return items_for_pass(margin, discordance, power=power) or 0

    assert needed() > needed(discordance=0.02) > needed(discordance=0.0)
    assert needed(power=0.9) > needed()
    assert needed(margin=0.02) > needed()


@pytest.mark.parametrize(
    "arguments", [{"margin": 0.0}, {"discordance": 1.5}, {"loss": 0.2}, {"power": 1.0}, {"loss": -0.1}]
)
def test_impossible_plans_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="no sample size"):
        items_for_pass(**({"margin": 0.03, "discordance": 0.05} | arguments))
