"""Items with other names and other company."""

import json
from typing import Any

import pytest
from conversations import FUNCTIONS, calls, user

from lf_export.calibration.suites import EvalItem, load_suite
from lf_export.calibration.variants import Variant, parse_variant, vary
from lf_export.errors import InputError
from lf_export.functions.answers import Call, calling, prose
from lf_export.functions.compare import compare
from lf_export.functions.possible import PossibleCall
from lf_export.functions.spec import FunctionSpec, from_openai, to_openai

MASKED = Variant("masked")
MAIL = Call("sendEmail", {"to": ["a"], "body": {"title": "x", "urgent": True}})


def item(name: str = "i", call: Call | None = MAIL, functions: Any = FUNCTIONS, **more: Any) -> EvalItem:
    expected = calling(call) if call else prose("No.")
    return EvalItem(name, "c", "block", (user("x"),), tuple(functions), expected, **more)


def others(count: int) -> list[EvalItem]:
    specs = [FunctionSpec(f"other_{at}", "", {"type": "object", "properties": {}}) for at in range(count)]
    return [item(spec.name, Call(spec.name, {}), [spec]) for spec in specs]


def test_masked_names_are_neutral_and_descriptions_stay() -> None:
    (masked,) = vary([item()], MASKED)
    assert (masked.id, masked.block, masked.variant, masked.category) == ("i~masked", "block~masked", "masked", "c")
    assert [spec.name for spec in masked.functions] == ["function_1", "function_2"]
    assert [spec.description for spec in masked.functions] == [spec.description for spec in FUNCTIONS]
    text = json.dumps([to_openai(spec) for spec in masked.functions])
    assert not [name for name in ("get_weather", "sendEmail", '"city"', '"title"', '"to"') if name in text]
    assert "City name" in text
    assert masked.functions[0].parameters["required"] == ["argument_1"]
    assert masked.functions[0].parameters["properties"]["argument_3"]["enum"] == ["metric", "imperial"]


def test_the_reference_of_a_masked_item_is_the_same_call_by_its_neutral_names() -> None:
    (masked,) = vary([item()], MASKED)
    assert masked.expected.calls == (
        Call("function_2", {"argument_1": ["a"], "argument_2": {"argument_1": "x", "argument_2": True}}),
    )
    assert compare(masked.expected, masked.expected.calls, masked.functions).schema_error is None
    assert from_openai([to_openai(spec) for spec in masked.functions]) == masked.functions


def test_earlier_turns_and_possible_values_are_masked_too() -> None:
    before = (
        user("x"),
        calls(("get_weather", {"city": "Rome"})),
        {"role": "tool", "name": "get_weather", "content": "5"},
        user("y"),
    )
    possible = PossibleCall(
        "sendEmail", {"to": [["a"], ["b"]], "body": [{"title": ["x"]}]}, FUNCTIONS[1].parameters["properties"], ("to",)
    )
    whole = EvalItem("i", "c", "b", before, FUNCTIONS, calling(MAIL), (possible,))
    (masked,) = vary([whole], MASKED)
    called = masked.messages[1]["tool_calls"][0]["function"]
    assert (called["name"], json.loads(called["arguments"])) == ("function_1", {"argument_1": "Rome"})
    assert masked.messages[2]["name"] == "function_1"
    assert masked.possible[0].name == "function_2"
    assert masked.possible[0].arguments == {"argument_1": [["a"], ["b"]], "argument_2": [{"argument_1": ["x"]}]}
    assert masked.possible[0].required == ("argument_1",)
    right = Call("function_2", {"argument_1": ["b"], "argument_2": {"argument_1": "x"}})
    assert compare(calling(right), masked.expected.calls, masked.functions, possible=masked.possible).exact


def test_an_item_without_a_call_is_masked_and_keeps_its_answer() -> None:
    (masked,) = vary([item(call=None)], MASKED)
    assert masked.expected == prose("No.")
    assert masked.functions[0].name == "function_1"


def test_distractors_are_functions_of_other_items_in_a_shuffled_order() -> None:
    (varied,) = vary([item()], Variant("distractors", 5), pool=others(20), seed=1)
    names = [spec.name for spec in varied.functions]
    assert len(names) == len(set(names)) == 7
    assert {"get_weather", "sendEmail"} < set(names)
    assert (varied.id, varied.variant) == ("i~distractors:5", "distractors:5")
    assert varied.expected == item().expected
    drawn = [vary([item()], Variant("distractors", 5), pool=others(20), seed=seed)[0] for seed in range(5)]
    assert len({tuple(spec.name for spec in each.functions) for each in drawn}) == 5


def test_a_distractor_never_has_the_name_of_a_function_that_is_shown() -> None:
    twin = item("twin", Call("sendEmail", {}), [FunctionSpec("sendEmail", "another", {"type": "object"})])
    (varied,) = vary([item()], Variant("distractors", 3), pool=[twin])
    assert sorted(spec.name for spec in varied.functions) == ["get_weather", "sendEmail"]
    assert all(spec in FUNCTIONS for spec in varied.functions)


def test_items_that_share_their_functions_share_their_distractors() -> None:
    first, second = vary([item("a"), item("b")], Variant("distractors", 4), pool=others(30), seed=3)
    assert first.functions == second.functions
    assert first.block == second.block


def test_an_item_without_a_call_has_no_distractors_as_one_of_them_could_serve() -> None:
    assert vary([item(call=None)], Variant("distractors", 2), pool=others(9)) == []


@pytest.mark.parametrize("text", ["masked", "distractors:1", "distractors:64"])
def test_a_variants_name_reads_back(text: str) -> None:
    assert str(parse_variant(text)) == text


@pytest.mark.parametrize(
    "text", ["", "masked:1", "distractors", "distractors:0", "distractors:65", "distractors:²", "x"]
)
def test_another_name_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected masked or distractors:N"):
        parse_variant(text)


@pytest.mark.parametrize("suite", ["calls", "no-call"])
def test_the_shipped_suites_masked_have_references_that_are_right(suite: str) -> None:
    for masked in vary(load_suite(suite), MASKED):
        outcome = compare(masked.expected, masked.expected.calls, masked.functions)
        assert (outcome.exact, outcome.schema_error) == (True, None), masked.id
