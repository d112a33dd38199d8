"""Strict judgement where several values are right."""

from typing import Any

import pytest
from conversations import FUNCTIONS

from lf_export.functions.answers import Call, calling
from lf_export.functions.compare import compare
from lf_export.functions.possible import ExactCall, PossibleCall, possible_of
from lf_export.functions.spec import FunctionSpec

PROPERTIES: dict[str, dict[str, Any]] = {
    "city": {"type": "string"},
    "days": {"type": "integer"},
    "who": {"type": "dict"},
    "guests": {"type": "array", "items": {"type": "dict"}},
    "tags": {"type": "array", "items": {"type": "string"}},
}
TRIP = PossibleCall(
    "trip",
    {
        "city": ["New York", "NYC"],
        "days": [3, ""],
        "who": [{"name": ["Ann", "A."], "age": [5, ""]}],
        "guests": [[{"name": ["Bo"]}], ""],
        "tags": [["a"], ["b"], ""],
    },
    PROPERTIES,
    ("city",),
)


@pytest.mark.parametrize(
    ("name", "value", "verdict"),
    [
        ("city", "NYC", True),
        ("city", "nyc", False),
        ("city", "", False),
        ("days", 3.0, True),
        ("days", True, False),
        ("days", "", False),
        ("who", {"name": "A."}, True),
        ("who", {"name": "Ann", "age": 5}, True),
        ("who", {"age": 5}, False),
        ("who", {"name": "Ann", "more": 1}, False),
        ("who", {"name": ["Ann"]}, False),
        ("guests", [{"name": "Bo"}], True),
        ("guests", [{"name": "Bo"}, {"name": "Bo"}], False),
        ("tags", ["b"], True),
        ("tags", ["a", "b"], False),
        ("unheard", 1, False),
    ],
)
def test_a_value_is_right_when_it_equals_an_allowed_one_as_json(name: str, value: Any, verdict: bool) -> None:
    assert TRIP.allows(name, value) == verdict


def test_what_is_needed_is_what_cannot_be_left_out() -> None:
    assert TRIP.needed == {"city", "who"}
    assert TRIP.known == {"city", "days", "who", "guests", "tags"}


def test_what_the_function_requires_is_needed_even_where_an_answer_would_leave_it_out() -> None:
    call = PossibleCall("f", {"x": [1, ""]}, {"x": {"type": "integer"}}, ("x",))
    assert call.needed == {"x"}
    assert call.reference() == Call("f", {"x": 1})


def test_the_reference_has_the_first_values_of_what_is_needed() -> None:
    assert TRIP.reference() == Call("trip", {"city": "New York", "who": {"name": "Ann"}})
    assert all(TRIP.allows(name, value) for name, value in TRIP.reference().arguments.items())


def test_java_text_is_read_before_it_is_compared() -> None:
    kinds = {"n": {"type": "long"}, "xs": {"type": "Array", "items": {"type": "String"}}, "o": {"type": "any"}}
    call = PossibleCall("f", {"n": [5], "xs": [["a", "b"]], "o": ["target"]}, kinds, (), "java")
    assert call.allows("n", "5L")
    assert not call.allows("n", 5)
    assert call.allows("xs", 'new String[]{"a", "b"}')  # the reader leaves the quotes, the leaderboard says wrong
    assert call.allows("xs", "new String[]{a, b}")
    assert call.allows("o", "target")
    assert not call.allows("o", '"target"')


def test_an_expected_call_in_the_leaderboards_form_lets_defaults_be_left_out() -> None:
    paris = Call("get_weather", {"city": "Paris", "units": "metric"})
    assert possible_of(paris, FUNCTIONS).arguments == {"city": ["Paris"], "units": ["metric", ""]}
    assert possible_of(Call("get_weather", {"city": "Paris"}), FUNCTIONS).arguments == {
        "city": ["Paris"],
        "units": ["metric", ""],
    }
    mail = Call("sendEmail", {"to": ["a"], "body": {"title": "Hi"}})
    assert possible_of(mail, FUNCTIONS).arguments == {"to": [["a"]], "body": [{"title": ["Hi"]}]}


def test_a_call_of_a_function_that_is_not_shown_has_a_form_too() -> None:
    assert possible_of(Call("f", {"a": {"b": 1}}), ()).arguments == {"a": [{"b": 1}]}


def test_strictly_any_allowed_value_is_exact_and_the_best_pairing_counts() -> None:
    spec = FunctionSpec("trip", "", {"type": "object", "properties": {"city": {"type": "string"}}})
    either = PossibleCall("trip", {"city": ["a", "b"]}, {"city": {"type": "string"}})
    one = PossibleCall("trip", {"city": ["a"]}, {"city": {"type": "string"}})
    answer = calling(Call("trip", {"city": "a"}), Call("trip", {"city": "b"}))
    outcome = compare(answer, [either.reference(), one.reference()], [spec], possible=[either, one])
    assert (outcome.exact, outcome.bfcl_like) == (True, False)  # the leaderboard pairs with greed


def test_strictly_punctuation_counts_where_the_leaderboard_forgives_it() -> None:
    spec = FunctionSpec("f", "", {"type": "object", "properties": {"version": {"type": "string"}}})
    wanted = PossibleCall("f", {"version": ["1.5"]}, {"version": {"type": "string"}})
    outcome = compare(calling(Call("f", {"version": "15"})), [wanted.reference()], [spec], possible=[wanted])
    assert (outcome.exact, outcome.bfcl_like, outcome.errors) == (False, True, ("wrong_value",))


def test_an_exact_call_allows_its_own_values_alone() -> None:
    exact = ExactCall(Call("f", {"x": 1}))
    assert exact.needed == exact.known == {"x"}
    assert exact.allows("x", 1.0)
    assert not exact.allows("y", 1)
