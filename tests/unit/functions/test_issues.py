"""What is wrong is told with its place."""

from typing import Any

import pytest
from conversations import FUNCTIONS

from lf_export.functions.answers import Call, calling, prose
from lf_export.functions.compare import compare
from lf_export.functions.issues import CallIssue

PARIS = Call("get_weather", {"city": "Paris", "days": 3})
ROME = Call("get_weather", {"city": "Rome"})
MAIL = Call("sendEmail", {"to": ["a@b.c", "d"], "body": {"title": "Hi"}})


def issues(made: list[Call], expected: list[Call], **how: Any) -> list[tuple[str, str, str, str | None]]:
    found = compare(calling(*made), expected, FUNCTIONS, **how).issues
    return [(issue.kind, issue.function, issue.path, issue.cause) for issue in found]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"to": ["a@b.c", "x"]}, ("nested", "sendEmail", "to[1]", "wrong_value")),
        ({"to": ["a@b.c"]}, ("nested", "sendEmail", "to", "wrong_value")),
        ({"to": ["a@b.c", 5]}, ("nested", "sendEmail", "to[1]", "wrong_type")),
        ({"to": "a@b.c"}, ("wrong_type", "sendEmail", "to", "wrong_type")),
        ({"body": {"title": "Ho"}}, ("nested", "sendEmail", "body.title", "wrong_value")),
        ({"body": {}}, ("nested", "sendEmail", "body.title", "missing_argument")),
        ({"body": {"title": "Hi", "cc": 1}}, ("nested", "sendEmail", "body.cc", "extra_argument")),
        ({"body": {"title": "Hi", "urgent": False}}, ("nested", "sendEmail", "body.urgent", "extra_argument")),
        ({"delay": 1}, ("extra_argument", "sendEmail", "delay", None)),
    ],
)
def test_a_wrong_argument_has_a_path(arguments: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert issues([Call("sendEmail", {**MAIL.arguments, **arguments})], [MAIL]) == [expected]


def test_every_place_of_a_call_is_told() -> None:
    made = Call("get_weather", {"days": "3", "units": "kelvin"})
    assert issues([made], [PARIS]) == [
        ("missing_argument", "get_weather", "city", None),
        ("wrong_type", "get_weather", "days", "wrong_type"),
        ("extra_argument", "get_weather", "units", None),
    ]


def test_calls_too_many_or_too_few_are_told_by_function() -> None:
    assert issues([PARIS], [PARIS, MAIL]) == [("count", "sendEmail", "", None)]
    assert issues([PARIS, Call("nope", {})], [PARIS]) == [
        ("count", "nope", "", None),
        ("unknown_function", "nope", "", None),
    ]


def test_order_counts_only_where_it_matters() -> None:
    assert issues([ROME, PARIS], [PARIS, ROME]) == []
    assert issues([ROME, PARIS], [PARIS, ROME], ordered=True) == [("order", "", "", None)]
    assert issues([PARIS, ROME], [PARIS, ROME], ordered=True) == []
    outcome = compare(calling(ROME, PARIS), [PARIS, ROME], FUNCTIONS, ordered=True)
    assert (outcome.exact, outcome.bfcl_like, outcome.arguments_right) == (False, True, 3)


def test_arguments_are_counted_one_by_one() -> None:
    half = Call("get_weather", {"city": "Paris", "days": 4})
    outcome = compare(calling(half), [PARIS, MAIL], FUNCTIONS)
    assert (outcome.arguments_expected, outcome.arguments_right) == (4, 1)
    wrong = compare(calling(Call("sendEmail", {"city": "Paris"})), [PARIS], FUNCTIONS)
    assert (wrong.arguments_expected, wrong.arguments_right) == (2, 0)
    assert compare(prose("No."), [PARIS], FUNCTIONS).arguments_expected == 2


def test_a_call_is_paired_with_the_expected_one_that_it_is_nearest_to() -> None:
    almost = Call("get_weather", {"city": "Rome", "days": 1})
    assert issues([almost, PARIS], [PARIS, ROME]) == [("extra_argument", "get_weather", "days", None)]


def test_calls_are_checked_against_the_functions_models() -> None:
    assert compare(calling(PARIS), [PARIS], FUNCTIONS).schema_error is None
    late = calling(PARIS, Call("get_weather", {"city": 5}))
    assert compare(late, [PARIS, ROME], FUNCTIONS).schema_error == "string_type"
    assert compare(calling(Call("nope", {})), [], FUNCTIONS).schema_error == "unknown_function"
    assert compare(prose("No."), [], FUNCTIONS).schema_error is None


def test_issues_can_be_counted() -> None:
    assert len({CallIssue("nested", "f", "a.b"), CallIssue("nested", "f", "a.b")}) == 1
