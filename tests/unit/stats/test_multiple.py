import pytest

from lf_export.stats import holm


def test_the_smallest_value_pays_for_all_questions_and_the_largest_for_itself() -> None:
    assert holm([0.04, 0.01]) == pytest.approx([0.04, 0.02])
    assert holm([0.01, 0.02, 0.03]) == pytest.approx([0.03, 0.04, 0.04])


def test_adjusted_values_never_exceed_one_nor_fall_out_of_order() -> None:
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.02, 0.021]) == pytest.approx([0.04, 0.04])


def test_one_question_is_left_alone_and_none_gives_none() -> None:
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not probabilities"):
        holm([0.5, value])
