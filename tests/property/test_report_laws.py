"""Answers in the report are whole: layout and marks neither add nor lose a letter."""

import json

from hypothesis import given
from hypothesis import strategies as st

from lf_export.report.html.differences import compared, laid_out

_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
_OBJECT = st.dictionaries(st.text(max_size=4), _VALUE, max_size=3)
_TEXT = st.text(alphabet='{}[]:," \n\\ab1é', max_size=60)


@given(_TEXT, _TEXT)
def test_pieces_joined_are_the_answers(first: str, second: str) -> None:
    before, after = compared(first, second)
    assert "".join(piece.text for piece in before) == first
    assert "".join(piece.text for piece in after) == second


@given(_TEXT)
def test_what_both_say_is_marked_nowhere(text: str) -> None:
    assert not any(piece.changed for side in compared(text, text) for piece in side)


@given(_TEXT)
def test_layout_changes_blanks_alone(text: str) -> None:
    assert "".join(laid_out(text).split()) == "".join(text.split())


@given(_OBJECT)
def test_what_is_laid_out_means_what_it_meant(value: dict[str, object]) -> None:
    assert json.loads(laid_out(json.dumps(value))) == value
