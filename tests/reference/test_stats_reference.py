"""The score bounds against a plain implementation that shares no formula with the package.

The likelihood under a fixed loss is maximised numerically on its logarithm (golden section), the variance is
computed from the four cell probabilities, and the bounds are found on a grid that is refined.
"""

import math
from statistics import NormalDist

import pytest

from lf_export.stats import PairedCounts, mcnemar, score_statistic, tango_bounds

GOLDEN = (math.sqrt(5) - 1) / 2


def log_likelihood(n: int, lost: int, gained: int, p_lost: float, p_gained: float) -> float:
    total = 0.0
    for count, p in ((lost, p_lost), (gained, p_gained), (n - lost - gained, 1 - p_lost - p_gained)):
        if count:
            total += count * (math.log(p) if p > 0 else -math.inf)
    return total


def constrained_gained(n: int, lost: int, gained: int, loss: float) -> float:
    """P(gained) of highest likelihood among the models with P(lost) - P(gained) = loss."""
    low, high = max(0.0, -loss), (1 - loss) / 2
    for _ in range(200):
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        if log_likelihood(n, lost, gained, left + loss, left) < log_likelihood(n, lost, gained, right + loss, right):
            low = left
        else:
            high = right
    return (low + high) / 2


def statistic(n: int, lost: int, gained: int, loss: float) -> float:
    p_gained = constrained_gained(n, lost, gained, loss)
    p_lost = p_gained + loss
    variance_of_one = p_lost + p_gained - (p_lost - p_gained) ** 2
    return ((lost - gained) / n - loss) / math.sqrt(variance_of_one / n)


def upper(n: int, lost: int, gained: int, alpha: float) -> float:
    """The smallest loss, to 1e-6, that a one-sided test at alpha rejects as too large."""
    z = NormalDist().inv_cdf(1 - alpha)
    start, step = (lost - gained) / n, 0.1
    while step > 1e-8:
        while start + step < 1 and statistic(n, lost, gained, start + step) > -z:
            start += step
        step /= 10
    return start


CASES = [
    (52, 0, 0),
    (88, 0, 0),
    (44, 0, 1),
    (44, 1, 0),
    (100, 5, 2),
    (100, 2, 5),
    (160, 9, 9),
    (30, 20, 5),
    (25, 0, 24),
    (500, 14, 11),
    (12, 6, 6),
]


@pytest.mark.parametrize("alpha", [0.05, 0.025, 0.2])
@pytest.mark.parametrize(("n", "lost", "gained"), CASES)
def test_bounds_equal_those_of_numeric_maximisation(n: int, lost: int, gained: int, alpha: float) -> None:
    bounds = tango_bounds(PairedCounts(n, n - lost - gained, lost, gained, 0), alpha)
    # golden section finds a flat maximum to about 1e-8 of its place, which moves the bound by less than 2e-6
    assert bounds == pytest.approx((-upper(n, gained, lost, alpha), upper(n, lost, gained, alpha)), abs=2e-6)


@pytest.mark.parametrize("loss", [-0.4, -0.03, 0.01, 0.03, 0.25, 0.7])
@pytest.mark.parametrize(("n", "lost", "gained"), CASES)
def test_the_statistic_equals_the_one_from_the_four_cells(n: int, lost: int, gained: int, loss: float) -> None:
    ours = score_statistic(PairedCounts(n, n - lost - gained, lost, gained, 0), loss)
    assert ours == pytest.approx(statistic(n, lost, gained, loss), abs=1e-4, rel=1e-5)


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (1, 0), (3, 5), (12, 4), (9, 9)])
def test_mcnemar_equals_the_enumeration_of_all_outcomes(lost: int, gained: int) -> None:
    flips = lost + gained
    chances = [0.0] * (flips + 1)
    chances[0] = 1.0
    for _ in range(flips):  # Pascal's triangle in probabilities
        chances = [(chances[k] + (chances[k - 1] if k else 0.0)) / 2 for k in range(flips + 1)]
    as_extreme = sum(p for k, p in enumerate(chances) if abs(k - flips / 2) >= abs(lost - flips / 2))
    counts = PairedCounts(100, 100 - flips, lost, gained, 0)
    assert mcnemar(counts) == pytest.approx(as_extreme)
    assert mcnemar(counts, side="loss") == pytest.approx(sum(chances[lost:]))
