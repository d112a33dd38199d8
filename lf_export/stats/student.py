"""Student's t: an interval for the mean of a handful of values, where a bootstrap would be too narrow."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from lf_export.stats.bootstrap import Interval

_HALVINGS = 80
_LARGEST = 1e6  # the quantile of one degree of freedom at a millionth


def mean_interval(values: Sequence[float], alpha: float = 0.05) -> Interval:
    """The mean with its two-sided t interval; nan bounds for fewer than two values, nan throughout for none.

    Raises:
        ValueError: `alpha` is not between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"no interval for {alpha=}")
    if not values:
        return Interval(math.nan, math.nan, math.nan)
    mean = fmean(values)
    if len(values) < 2:
        return Interval(mean, math.nan, math.nan)
    half = t_quantile(1 - alpha, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def t_quantile(inside: float, degrees: int) -> float:
    """The t with P(|T| <= t) = `inside` for so many degrees of freedom, by bisection."""
    low, high = 0.0, _LARGEST
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _inside(middle, degrees) < inside else (low, middle)
    return low


def _inside(t: float, degrees: int) -> float:
    """P(|T| <= t): M. Abramowitz, I. Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(degrees))
    cosine = math.cos(angle)
    odd = degrees % 2
    term = cosine if odd else 1.0
    total = 0.0 if degrees == 1 else term
    for power in range(2 + odd, degrees - 1, 2):
        term *= cosine * cosine * (power - 1) / power
        total += term
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
