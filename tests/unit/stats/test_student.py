"""Student's t interval is that of the tables."""

import math

import pytest

from lf_export.stats import mean_interval
from lf_export.stats.student import t_quantile


@pytest.mark.parametrize(
    ("degrees", "inside", "expected"),
    [
        (1, 0.95, 12.7062),
        (2, 0.95, 4.3027),
        (3, 0.95, 3.1824),
        (4, 0.95, 2.7764),
        (5, 0.99, 4.0321),
        (10, 0.95, 2.2281),
        (29, 0.90, 1.6991),
        (120, 0.95, 1.9799),
    ],
)
def test_quantiles_are_those_of_the_tables(degrees: int, inside: float, expected: float) -> None:
    assert t_quantile(inside, degrees) == pytest.approx(expected, abs=5e-5)


def test_the_interval_of_a_mean_by_hand() -> None:
    found = mean_interval([1.0, 2.0, 3.0])  # standard error 1 / sqrt(3), t 4.3027 for two degrees of freedom
    assert found.estimate == 2
    assert found.upper - 2 == pytest.approx(4.3027 / math.sqrt(3), abs=1e-4)
    assert 2 - found.lower == pytest.approx(found.upper - 2)


def test_one_value_has_no_interval_and_none_has_no_mean() -> None:
    one = mean_interval([3.0])
    assert one.estimate == 3
    assert math.isnan(one.lower)
    assert math.isnan(mean_interval([]).estimate)
