"""The table in docs/explanation/scores.md: where the strict score and the leaderboard's differ by intent."""

from typing import Any

import pytest

from lf_export.functions.answers import Answer, Call, calling, read_answer, write_calls
from lf_export.functions.compare import compare
from lf_export.functions.possible import Language, PossibleCall
from lf_export.functions.spec import FunctionSpec

SPEC = FunctionSpec("f", "", {"type": "object", "properties": {"x": {}}})


def possible(kind: str, *allowed: Any, items: str | None = None, language: Language = "python") -> PossibleCall:
    schema = {"type": kind} | ({"items": {"type": items}} if items else {})
    return PossibleCall("f", {"x": list(allowed)}, {"x": schema}, (), language)


def scores(answer: Answer, *wanted: PossibleCall, ordered: bool = False) -> tuple[bool, bool]:
    expected = [each.reference() for each in wanted]
    outcome = compare(answer, expected, [SPEC], possible=wanted, ordered=ordered)
    return outcome.exact, outcome.bfcl_like


def f(value: Any) -> Call:
    return Call("f", {"x": value})


@pytest.mark.parametrize(
    ("value", "wanted", "strict", "bfcl"),
    [
        ("1.5", possible("string", "15"), False, True),
        ("New York NY", possible("string", "new-york, n.y."), False, True),
        ("it's", possible("string", 'it"s'), False, True),
        (5.0, possible("integer", 5), True, False),
        ([5.0], possible("array", [5], items="integer"), True, False),
        ({"k": True}, possible("dict", {"k": [1]}), False, True),
        ("", possible("string", "a", ""), False, True),
        ('new String[]{"a"}', possible("Array", ["a"], items="String", language="java"), True, False),
        (
            "new ArrayList<Object>(Arrays.asList(a, true))",
            possible("ArrayList", ["a", True], items="any", language="java"),
            True,
            False,
        ),
        (
            'new HashMap<String, Object>() {{ put("format", "millis"); }}',
            possible("HashMap", {"format": "millis"}, language="java"),
            True,
            False,
        ),
    ],
)
def test_values_that_the_two_scores_see_otherwise(value: Any, wanted: PossibleCall, strict: bool, bfcl: bool) -> None:
    assert scores(calling(f(value)), wanted) == (strict, bfcl)


def test_garbage_for_an_abstention() -> None:
    assert scores(Answer("malformed", (), "{")) == (False, True)
    assert scores(Answer("empty")) == (False, True)


def test_a_call_in_a_code_fence() -> None:
    fenced = read_answer(f"```json\n{write_calls([f('a')])}\n```")
    assert scores(fenced, possible("string", "a")) == (False, True)


def test_the_better_of_two_pairings() -> None:
    either, one = possible("integer", 1, 2), possible("integer", 1)
    assert scores(calling(f(1), f(2)), either, one) == (True, False)


def test_another_order_where_order_matters() -> None:
    first, second = possible("integer", 1), possible("integer", 2)
    assert scores(calling(f(2), f(1)), first, second, ordered=True) == (False, True)
    assert scores(calling(f(2), f(1)), first, second) == (True, True)
