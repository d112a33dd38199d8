import math

import pytest

from lf_export.stats import wilson


def test_the_score_interval_is_the_published_one() -> None:
    # R. Newcombe, Statistics in Medicine 17 (1998), table I, method 3
    for right, n, lower, upper in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        found = wilson(right, n)
        assert found.estimate == right / n
        assert (found.lower, found.upper) == (pytest.approx(lower, abs=5e-5), pytest.approx(upper, abs=5e-5))
    assert wilson(29, 29).upper == 1


def test_no_items_say_nothing_and_more_than_all_is_an_error() -> None:
    nothing = wilson(0, 0)
    assert math.isnan(nothing.estimate)
    assert (nothing.lower, nothing.upper) == (0, 1)
    with pytest.raises(ValueError, match="3 of 2"):
        wilson(3, 2)
