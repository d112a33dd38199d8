import math

import numpy as np
import pytest

from lf_export.stats import cluster_bootstrap


def clusters_of(seed: int, *, spread: float, number: int = 60) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [3.0 + spread * generator.normal() + 0.1 * generator.normal(size=20) for _ in range(number)]


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    clusters = clusters_of(1, spread=1.0)
    assert cluster_bootstrap(clusters, seed=4) == cluster_bootstrap(clusters, seed=4)
    assert cluster_bootstrap(clusters, seed=4) != cluster_bootstrap(clusters, seed=5)


def test_clusters_are_drawn_whole_so_that_repeated_values_do_not_narrow_the_interval() -> None:
    clusters = clusters_of(2, spread=1.0)
    few = cluster_bootstrap([cluster[:2] for cluster in clusters])
    many = cluster_bootstrap(clusters)
    # twenty values of a cluster say hardly more than two: the width may not shrink as 1/sqrt(10) would
    assert many.upper - many.lower > 0.8 * (few.upper - few.lower)
    # and it is the standard error of 60 cluster means, 2 x 1.96 / sqrt(60) = 0.506, up to sampling
    assert many.upper - many.lower == pytest.approx(0.506, rel=0.25)


def test_the_interval_of_the_mean_holds_the_truth_about_as_often_as_it_says() -> None:
    held = 0
    for seed in range(200):
        interval = cluster_bootstrap(clusters_of(seed, spread=1.0), resamples=400, seed=seed)
        held += interval.lower <= 3.0 <= interval.upper
    # 95 % nominal; 200 runs have a standard error of 1.5 points, and percentile intervals run short by about one
    assert 0.88 <= held / 200 <= 0.99


def test_any_statistic_of_rows_can_be_asked_for() -> None:
    generator = np.random.default_rng(3)
    rows = [np.column_stack([2 * (base := generator.uniform(1, 2, 8)), base]) for _ in range(10)]
    ratio = cluster_bootstrap(rows, lambda r: float(np.median(r[:, 0]) / np.median(r[:, 1])), resamples=200)
    assert ratio.estimate == pytest.approx(2.0)
    assert (ratio.lower, ratio.upper) == pytest.approx((2.0, 2.0))


def test_the_fast_path_of_the_mean_equals_the_general_one() -> None:
    clusters = [np.arange(k, dtype=float) for k in range(1, 9)]
    fast = cluster_bootstrap(clusters, resamples=100)
    general = cluster_bootstrap(clusters, lambda rows: float(np.mean(rows)), resamples=100)
    assert (fast.lower, fast.upper) == pytest.approx((general.lower, general.upper))


def test_too_little_evidence_gives_no_interval() -> None:
    assert math.isnan(cluster_bootstrap([]).estimate)
    one = cluster_bootstrap([np.ones(5), np.empty(0)])
    assert one.estimate == 1.0
    assert math.isnan(one.lower)
    assert math.isnan(one.upper)


@pytest.mark.parametrize("arguments", [{"alpha": 0.0}, {"alpha": 1.0}, {"resamples": 0}])
def test_settings_outside_their_range_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="no interval"):
        cluster_bootstrap([np.ones(3)], **arguments)
