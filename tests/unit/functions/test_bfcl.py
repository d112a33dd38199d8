"""The leaderboard's rules, odd ones included; `tests/reference` has its own verdicts on many more answers."""

from typing import Any

import pytest

from lf_export.functions.answers import Answer, Call, calling, prose
from lf_export.functions.bfcl import bfcl_abstained, bfcl_call, bfcl_right
from lf_export.functions.possible import PossibleCall


def wanted(kind: str, *allowed: Any, items: str | None = None, required: bool = True) -> PossibleCall:
    schema: dict[str, Any] = {"type": kind} | ({"items": {"type": items}} if items else {})
    return PossibleCall("f", {"x": list(allowed)}, {"x": schema}, ("x",) if required else ())


def right(possible: PossibleCall, value: Any) -> bool:
    return bfcl_call(Call("f", {"x": value}), possible)


@pytest.mark.parametrize(
    ("kind", "allowed", "value", "verdict"),
    [
        ("string", "New York, NY", "new-york ny", True),
        ("string", "1.5", "15", True),
        ("string", "it's", 'it"s', True),
        ("string", "a b", "a+b", False),
        ("integer", 5, 5, True),
        ("integer", 5, 5.0, False),
        ("integer", 1, True, False),
        ("float", 5.0, 5, True),
        ("float", 5, 5, True),
        ("boolean", True, 1, False),
        ("boolean", True, True, True),
        ("integer", "days", "days", True),
        ("integer", "days", "Days", False),
        ("any", 5, 5, True),
        ("dict", {"k": ["v", ""]}, {}, True),
        ("dict", {"k": ["v"]}, {"k": "V."}, True),
        ("dict", {"k": ["v"]}, {"k": "v", "l": 1}, False),
        ("dict", {"k": [1]}, {"k": True}, True),
        ("tuple", [1.5], [1.5], True),
    ],
)
def test_a_value_is_judged_as_the_leaderboard_judges_it(kind: str, allowed: Any, value: Any, verdict: bool) -> None:
    assert right(wanted(kind, allowed, items="float" if kind == "tuple" else None), value) == verdict


def test_types_are_compared_one_level_into_lists() -> None:
    numbers = wanted("array", [1, 2], items="integer")
    assert right(numbers, [1, 2])
    assert not right(numbers, [1.0, 2.0])
    assert not right(numbers, [2, 1])
    assert not right(numbers, ["1", "2"])


def test_lists_of_objects_are_compared_in_order() -> None:
    people = wanted("array", [{"name": ["Bo"]}, {"name": ["Cy", "C"]}], items="dict")
    assert right(people, [{"name": "bo"}, {"name": "c"}])
    assert not right(people, [{"name": "c"}, {"name": "bo"}])
    assert not right(people, [{"name": "bo"}])


def test_a_table_after_what_may_be_left_out_is_looked_at() -> None:
    assert right(wanted("dict", "", {"k": ["v", ""]}), {})
    assert not right(wanted("dict", "", {"k": ["v"]}), {})


def test_an_argument_may_be_left_out_only_where_the_answer_says_so() -> None:
    assert bfcl_call(Call("f", {}), wanted("string", "a", "", required=False))
    assert not bfcl_call(Call("f", {}), wanted("string", "a", required=False))
    assert not bfcl_call(Call("f", {}), wanted("string", "a", "", required=True))


def test_an_argument_that_is_not_in_the_answer_is_wrong_even_if_the_function_has_it() -> None:
    possible = PossibleCall("f", {}, {"x": {"type": "string"}})
    assert bfcl_call(Call("f", {}), possible)
    assert not bfcl_call(Call("f", {"x": ""}), possible)


def test_calls_are_taken_with_greed() -> None:
    either, one = wanted("integer", 1, 2), wanted("integer", 1)
    first, second = Call("f", {"x": 1}), Call("f", {"x": 2})
    assert bfcl_right([second, first], [either, one])
    assert not bfcl_right([first, second], [either, one])  # the first takes what only the second could use
    assert not bfcl_right([first], [either, one])


def test_what_ends_the_checker_with_a_traceback_is_wrong() -> None:
    # "" accepts any element, and then the checker looks for keys in a text
    assert not right(wanted("array", [{"a": [1]}], "", items="dict"), ["x"])


@pytest.mark.parametrize(
    ("kind", "allowed", "items", "value", "verdict"),
    [
        ("integer", 5, None, "5", True),
        ("integer", 5, None, 5, False),
        ("long", 5, None, "5L", True),
        ("long", 5, None, "5", False),
        ("boolean", True, None, "true", True),
        ("ArrayList", ["a", "b"], "String", 'new ArrayList<String>(Arrays.asList("a", "b"))', True),
        ("Array", ["a"], "String", 'new String[]{"a"}', False),
        ("Array", ["a"], "String", "new String[]{a}", True),
        ("HashMap", {"k": [1]}, None, 'new HashMap<>() {{ put("k", 1); }}', True),
    ],
)
def test_java_arguments_are_source_text(kind: str, allowed: Any, items: str | None, value: Any, verdict: bool) -> None:
    schema: dict[str, Any] = {"type": kind} | ({"items": {"type": items}} if items else {})
    assert right(PossibleCall("f", {"x": [allowed]}, {"x": schema}, ("x",), "java"), value) == verdict


def test_garbage_is_an_abstention_for_the_leaderboard() -> None:
    assert bfcl_abstained(prose("No."))
    assert bfcl_abstained(Answer("malformed", (), '{"function_call":'))
    assert bfcl_abstained(Answer("empty"))
    assert not bfcl_abstained(calling(Call("f", {})))
    assert not bfcl_abstained(Answer("malformed", (Call("f", {}),), "```"))
