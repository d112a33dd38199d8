import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lf_export.metrics.drift import drift

_ANSWERS = st.dictionaries(st.sampled_from("abcdef"), st.lists(st.integers(0, 3), max_size=6), min_size=1)


def test_answers_are_compared_up_to_their_first_token_that_differs() -> None:
    baseline = {"same": (1, 2), "late": (1, 2, 3, 4), "early": (5, 6), "only here": (1,)}
    found = drift(baseline, {"same": (1, 2), "late": (1, 2, 3, 9), "early": (7, 6), "elsewhere": (1,)})
    assert found is not None
    assert (found.answers, found.identical) == (3, 1)
    assert found.agreed == pytest.approx((1 + 3 / 4 + 0) / 3)
    assert found.agreed_lower <= found.agreed <= found.agreed_upper
    assert found.first_difference == 1.5  # tokens 0 and 3
    assert found.farthest == ("early", "late")


def test_an_answer_that_goes_on_longer_is_not_the_same() -> None:
    found = drift({"one": (1, 2)}, {"one": (1, 2, 3)})
    assert found is not None
    assert (found.identical, found.agreed, found.first_difference) == (0, pytest.approx(2 / 3), 2)
    assert math.isnan(found.agreed_lower)


def test_nothing_in_common_is_no_figure() -> None:
    assert drift({"one": (1,)}, {}) is None


@given(_ANSWERS)
def test_answers_do_not_drift_from_themselves(answers: dict[str, list[int]]) -> None:
    found = drift(answers, answers)
    assert found is not None
    assert (found.identical, found.agreed, found.first_difference, found.farthest) == (len(answers), 1, None, ())


@given(_ANSWERS, _ANSWERS)
def test_drift_is_the_same_both_ways(one: dict[str, list[int]], other: dict[str, list[int]]) -> None:
    there, back = drift(one, other), drift(other, one)
    assert (there and (there.identical, there.first_difference)) == (back and (back.identical, back.first_difference))
