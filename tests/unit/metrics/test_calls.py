"""An answer is judged by what it calls, how it ended and whether it ran in circles."""

from lf_export.functions.answers import Call, calling, prose
from lf_export.functions.spec import FunctionSpec
from lf_export.metrics.calls import is_loop, judge

SPEC = FunctionSpec("f", "", {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]})
END = frozenset({2})


def test_the_expected_call_is_exact() -> None:
    found = judge(calling(Call("f", {"x": 1})), [Call("f", {"x": 1})], [SPEC], [5, 6, 2], END)
    assert (found.kind, found.exact, found.cut) == ("call", True, False)


def test_a_wrong_argument_is_named() -> None:
    found = judge(calling(Call("f", {"x": 3})), [Call("f", {"x": 1})], [SPEC], [5, 6, 2], END)
    assert (found.exact, found.name_ok, found.errors) == (False, True, ("wrong_value",))


def test_prose_is_right_only_where_no_call_is_expected() -> None:
    assert judge(prose("hello"), [], [SPEC], [5, 2], END).exact
    assert not judge(prose("hello"), [Call("f", {"x": 1})], [SPEC], [5, 2], END).exact


def test_an_answer_without_an_end_token_was_cut() -> None:
    assert judge(prose("hello"), [], [], [5, 6], END).cut
    assert judge(prose(""), [], [], [], END).cut


def test_a_repeated_stretch_at_the_end_is_a_loop() -> None:
    assert is_loop([9, 8, 7, *([1, 2, 3] * 4)])
    assert not is_loop([1, 2, 3] * 3)
    assert not is_loop(list(range(100)))
    assert judge(prose("na"), [], [], [1, *([4] * 8)], END).loops
    assert not judge(prose("na"), [], [], [1, *([4] * 8), 2], END).loops


def test_a_wrong_answer_that_was_cut_is_truncated_or_a_loop() -> None:
    expected = [Call("f", {"x": 1})]
    assert judge(prose("half an"), expected, [SPEC], [5, 6], END).errors == ("not_a_call", "truncated")
    assert judge(prose("na na"), expected, [SPEC], [4] * 8, END).errors == ("not_a_call", "loop")
    assert judge(prose("No."), expected, [SPEC], [5, 2], END).errors == ("not_a_call",)
    assert judge(calling(Call("f", {"x": 1})), expected, [SPEC], [5, 6], END).errors == ()


def test_an_answer_is_valid_by_the_functions_model_or_says_why_not() -> None:
    right = judge(calling(Call("f", {"x": 1})), [], [SPEC], [5, 2], END)
    assert (right.schema_valid, right.schema_error) == (True, None)
    wrong = judge(calling(Call("f", {"x": "1"})), [], [SPEC], [5, 2], END)
    assert (wrong.schema_valid, wrong.schema_error) == (False, "int_type")
    assert not judge(prose("x"), [], [SPEC], [5, 2], END).schema_valid
