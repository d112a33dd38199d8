"""Intervals for continuous measures whose values come in clusters: tokens of an item, repeats of a prompt."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate with a two-sided interval; nan where there is no evidence."""

    estimate: float
    lower: float
    upper: float


def _mean(rows: Rows) -> float:
    return float(rows.mean())


def cluster_bootstrap(
    clusters: Sequence[NDArray[np.floating]],
    statistic: Callable[[Rows], float] = _mean,
    *,
    resamples: int = 2000,
    alpha: float = 0.05,
    seed: int = 0,
) -> Interval:
    """The percentile interval of `statistic` when whole clusters are drawn again with replacement.

    Values inside a cluster (the tokens of one answer) are not independent, so a cluster is drawn as one piece. Not for
    right-or-wrong items: at zero flips it gives [0, 0]; use `tango_bounds` there.

    Args:
        clusters: one array for each cluster, its rows along the first axis. A row may be a number, or a pair
            such as (candidate, baseline) for the ratio of two medians.
        statistic: from all rows to a number.
        resamples: how many draws.
        alpha: two-sided level; 0.05 gives a 95 % interval.
        seed: the same seed gives the same interval.

    Returns:
        The estimate on the rows as they are, and the interval; nan bounds for fewer than two clusters.

    Source: B. Efron and R. Tibshirani, An Introduction to the Bootstrap (1993), chapters 8 and 13.

    Raises:
        ValueError: `alpha` or `resamples` is outside its range.
    """
    if not 0 < alpha < 1 or resamples < 1:
        raise ValueError(f"no interval for {alpha=}, {resamples=}")
    filled = [np.asarray(cluster, dtype=np.float64) for cluster in clusters if len(cluster)]
    if not filled:
        return Interval(np.nan, np.nan, np.nan)
    estimate = float(statistic(np.concatenate(filled)))
    if len(filled) < 2:
        return Interval(estimate, np.nan, np.nan)
    draws = np.random.default_rng(seed).integers(len(filled), size=(resamples, len(filled)))
    if statistic is _mean and filled[0].ndim == 1:  # the mean needs only sums and lengths: no copies of the rows
        sums = np.array([cluster.sum() for cluster in filled])
        lengths = np.array([len(cluster) for cluster in filled])
        values = sums[draws].sum(axis=1) / lengths[draws].sum(axis=1)
    else:
        values = np.array([statistic(np.concatenate([filled[i] for i in draw])) for draw in draws])
    lower, upper = np.quantile(values, [alpha / 2, 1 - alpha / 2])
    return Interval(estimate, float(lower), float(upper))
