"""A share of items, and how sure it is."""

import math
from statistics import NormalDist

from lf_export.stats.bootstrap import Interval


def wilson(right: int, n: int, alpha: float = 0.05) -> Interval:
    """The two-sided score interval of a share at level 1 - alpha; no items give nan between 0 and 1.

    Source: E. Wilson, Journal of the American Statistical Association 22 (1927), 209-212.

    Raises:
        ValueError: `right` is not between 0 and `n`.
    """
    if not 0 <= right <= n:
        raise ValueError(f"{right} of {n} is no share")
    if not n:
        return Interval(math.nan, 0.0, 1.0)
    z = NormalDist().inv_cdf(1 - alpha / 2)
    share = right / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(share, max(0.0, middle - reach), min(1.0, middle + reach))
