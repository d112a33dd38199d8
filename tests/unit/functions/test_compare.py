from typing import Any

import pytest
from conversations import FUNCTIONS

from lf_export.functions.answers import Answer, Call, calling, prose, read_answer, write_calls
from lf_export.functions.compare import compare

PARIS = Call("get_weather", {"city": "Paris", "days": 3})
ROME = Call("get_weather", {"city": "Rome"})
MAIL = Call("sendEmail", {"to": ["a@b.c"], "body": {"title": "Hi"}})


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ([PARIS], [PARIS]),
        ([Call("get_weather", {"days": 3.0, "city": "Paris"})], [PARIS]),
        ([ROME, PARIS], [PARIS, ROME]),
        ([Call("get_weather", {"city": "Zu\u0308rich"})], [Call("get_weather", {"city": "Z\u00fcrich"})]),
    ],
)
def test_the_same_calls_are_exact(made: list[Call], expected: list[Call]) -> None:
    outcome = compare(calling(*made), expected, FUNCTIONS)
    assert (outcome.exact, outcome.name_ok, outcome.errors, outcome.bfcl_like) == (True, True, (), True)


@pytest.mark.parametrize(
    ("made", "expected", "errors"),
    [
        ([Call("weather", {"city": "Paris"})], [PARIS], ("unknown_function",)),
        ([MAIL], [PARIS], ("wrong_function",)),
        ([Call("get_weather", {"city": "Paris"})], [PARIS], ("missing_argument",)),
        ([PARIS], [Call("get_weather", {"city": "Paris"})], ("extra_argument",)),
        ([Call("get_weather", {"city": "Paris", "days": "3"})], [PARIS], ("wrong_type",)),
        ([Call("get_weather", {"city": "Paris", "days": 4})], [PARIS], ("wrong_value",)),
        ([Call("get_weather", {"city": "paris", "days": 3})], [PARIS], ("wrong_value",)),
        ([Call("get_weather", {"city": "Paris ", "days": 3})], [PARIS], ("wrong_value",)),
        (
            [Call("get_weather", {"city": "Rome", "units": "k"})],
            [Call("get_weather", {"city": "Rome", "units": "metric"})],
            ("enum",),
        ),
        ([Call("sendEmail", {"to": ["a@b.c"], "body": {"title": "Ho"}})], [MAIL], ("nested",)),
        ([Call("sendEmail", {"to": ["x"], "body": {"title": "Hi"}})], [MAIL], ("nested",)),
        ([Call("sendEmail", {"to": "a@b.c", "body": {"title": "Hi"}})], [MAIL], ("wrong_type",)),
        ([PARIS, ROME], [PARIS], ("count",)),
        ([PARIS], [PARIS, ROME], ("count",)),
        ([PARIS, Call("nope", {})], [PARIS], ("unknown_function", "count")),
        ([PARIS, MAIL], [ROME, PARIS], ("wrong_function",)),
        ([Call("get_weather", {"days": "3"})], [PARIS], ("missing_argument", "wrong_type")),
    ],
)
def test_what_went_wrong_is_told_by_kind(made: list[Call], expected: list[Call], errors: tuple[str, ...]) -> None:
    outcome = compare(calling(*made), expected, FUNCTIONS)
    assert (outcome.exact, outcome.errors) == (False, errors)
    assert outcome.name_ok == (sorted(call.name for call in made) == sorted(call.name for call in expected))


def test_no_call_where_one_is_expected() -> None:
    assert compare(prose("Fine."), [PARIS], FUNCTIONS).errors == ("not_a_call",)
    assert compare(Answer("empty"), [PARIS], FUNCTIONS).errors == ("not_a_call",)
    assert compare(Answer("malformed"), [PARIS], FUNCTIONS).errors == ("malformed",)


@pytest.mark.parametrize(
    ("answer", "errors"),
    [
        (prose("No."), ()),
        (calling(PARIS), ("unwanted_call",)),
        (Answer("malformed", (), "{"), ("malformed",)),
        (Answer("empty"), ("not_a_call",)),
    ],
)
def test_where_no_call_is_expected_only_prose_is_right(answer: Answer, errors: tuple[str, ...]) -> None:
    outcome = compare(answer, (), FUNCTIONS)
    assert outcome.errors == errors
    assert outcome.exact == (not errors)


def test_the_leaderboard_takes_whatever_is_no_call_for_an_abstention() -> None:
    garbage = [Answer("malformed", (), "{"), Answer("empty"), prose("No.")]
    assert [compare(answer, (), FUNCTIONS).bfcl_like for answer in garbage] == [True, True, True]
    assert not compare(calling(PARIS), (), FUNCTIONS).bfcl_like


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ({"city": "new-york, N.Y."}, {"city": "New York NY"}),
        ({"city": "Paris", "units": "metric"}, {"city": "Paris"}),
        ({"city": "Paris"}, {"city": "Paris", "units": "metric"}),
    ],
)
def test_the_lenient_score_forgives_writing_and_defaults(made: Any, expected: Any) -> None:
    outcome = compare(calling(Call("get_weather", made)), [Call("get_weather", expected)], FUNCTIONS)
    assert (outcome.exact, outcome.bfcl_like) == (False, True)


@pytest.mark.parametrize(
    "made", [{"city": "Rome"}, {"city": "Paris", "days": 1}, {"city": "Paris", "units": "imperial"}]
)
def test_the_lenient_score_does_not_forgive_values(made: Any) -> None:
    expected = [Call("get_weather", {"city": "Paris"})]
    assert not compare(calling(Call("get_weather", made)), expected, FUNCTIONS).bfcl_like


def test_the_lenient_score_takes_a_call_out_of_a_code_fence() -> None:
    outcome = compare(read_answer(f"```\n{write_calls([PARIS])}\n```"), [PARIS], FUNCTIONS)
    assert (outcome.exact, outcome.errors, outcome.bfcl_like) == (False, ("malformed",), True)


def test_the_lenient_score_finds_the_pairing_that_greed_would_miss() -> None:
    # the first call could be either of the expected ones, the second only the first
    loose = Call("get_weather", {"city": "a.b"})
    outcome = compare(calling(loose, loose), [Call("get_weather", {"city": "ab"}), loose], FUNCTIONS)
    assert outcome.bfcl_like
