"""Items that share something flip together, and then prove less."""

import random

import numpy as np
import pytest

from lf_export.stats import PairedCounts, items_for_pass, paired, score_statistic, tango_bounds

MARGIN, Z = 0.05, 1.6448536269514722


def test_a_design_effect_counts_as_that_many_fewer_items() -> None:
    clustered, fewer = PairedCounts(400, 380, 16, 4, 0, design_effect=2.0), PairedCounts(200, 190, 8, 2, 0)
    assert tango_bounds(clustered) == pytest.approx(tango_bounds(fewer))
    assert score_statistic(clustered, MARGIN) == pytest.approx(score_statistic(fewer, MARGIN))
    assert clustered.exchanged().design_effect == 2.0


@pytest.mark.parametrize("effect", [0.99, 0.0, -1.0, float("nan")])
def test_a_design_effect_below_one_is_refused(effect: float) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        PairedCounts(10, 10, 0, 0, 0, design_effect=effect)


def test_flips_that_fill_whole_clusters_have_the_effect_of_the_clusters_size() -> None:
    # in every third cluster of five all items are lost: each cluster is one observation
    baseline, clusters = [True] * 1500, [item // 5 for item in range(1500)]
    candidate = [cluster % 3 != 0 for cluster in clusters]
    found = paired(baseline, candidate, clusters)
    assert found.design_effect == pytest.approx((100 * 5 + 10 * 1.4) / 110, rel=0.01)
    assert paired(baseline, candidate).design_effect == 1
    assert paired(baseline, candidate, list(range(1500))).design_effect == pytest.approx(1, abs=0.01)


def test_without_flips_items_of_a_cluster_count_a_little_less() -> None:
    right = [True] * 300
    alone, pairs = (paired(right, right, [item // size for item in range(300)]) for size in (1, 2))
    assert alone.design_effect == 1
    assert pairs.design_effect == pytest.approx(1.1)
    assert paired(right, right, ["all"] * 300).design_effect == 1  # one cluster says nothing of others


def test_clusters_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"zip\(\) argument"):
        paired([True, False], [True, False], ["a"])


def accepted(discordance: float, loss: float, size: int, *, aware: bool, n: int = 400, runs: int = 400) -> float:
    """The share of simulated runs whose bound lies under the margin; items of a cluster share half their fate."""
    rng = np.random.default_rng(7)
    chances = [(discordance + loss) / 2, (discordance - loss) / 2, 1 - discordance]
    clusters = [item // size for item in range(n)]
    passed = 0
    for _ in range(runs):
        own = rng.choice(3, size=n, p=chances)
        shared = rng.choice(3, size=-(-n // size), p=chances).repeat(size)[:n]
        fate = np.where(rng.random(n) < (0.3**0.5 if size > 1 else 0), shared, own)
        right = (fate != 1).tolist(), (fate != 0).tolist()
        passed += score_statistic(paired(*right, clusters if aware else None), MARGIN) < -Z
    return passed / runs


def test_a_true_loss_of_the_margin_is_accepted_one_time_in_twenty_clusters_or_not() -> None:
    allowed = 0.05 + 3 * (0.05 * 0.95 / 400) ** 0.5
    assert accepted(0.1, MARGIN, 1, aware=False) <= allowed
    assert accepted(0.1, MARGIN, 4, aware=True) <= allowed
    assert accepted(0.1, MARGIN, 4, aware=False) > allowed  # so the test can tell


def test_the_number_of_items_that_is_planned_gives_the_power_that_is_promised() -> None:
    needed = items_for_pass(MARGIN, 0.05)
    assert needed is not None
    assert accepted(0.05, 0.0, 1, aware=False, n=needed) == pytest.approx(0.8, abs=0.08)


def test_the_design_effect_does_not_depend_on_the_order_of_the_items() -> None:
    rng = random.Random(0)  # noqa: S311
    items = [(rng.random() < 0.8, rng.random() < 0.7, rng.randrange(30)) for _ in range(200)]
    first = paired(*map(list, zip(*items, strict=True)))  # type: ignore[arg-type]
    rng.shuffle(items)
    again = paired(*map(list, zip(*items, strict=True)))  # type: ignore[arg-type]
    assert first.design_effect == pytest.approx(again.design_effect)
    assert (first.lost, first.gained) == (again.lost, again.gained)
