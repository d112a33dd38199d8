"""Laws of the grammars of calls: what is right can be written, what no function takes cannot."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from conversations import FUNCTIONS, GOOD
from grammar_takers import takes, takes_lark
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import STRING, calls_to, specs

from lf_export.calibration.suites import EvalItem, load_suite
from lf_export.functions.answers import Call, Form, write_calls
from lf_export.functions.grammars import call_grammar
from lf_export.functions.spec import FunctionSpec


def written(calls: Sequence[Call], form: Form) -> str:
    """The calls as a model writes them in that form."""
    if form == "function_call":
        return write_calls(calls)
    objects = [json.dumps({"name": call.name, "arguments": dict(call.arguments)}, ensure_ascii=False) for call in calls]
    return "\n".join(f"<tool_call>\n{each}\n</tool_call>" for each in objects)


def test_every_expected_call_of_the_shipped_suite_can_be_written_in_every_form() -> None:
    items = load_suite("calls")
    assert len(items) > 300

    def shown(item: EvalItem) -> str:
        return json.dumps([[spec.name, dict(spec.parameters)] for spec in item.functions])

    for _, members in groupby(sorted(items, key=shown), key=shown):
        same = list(members)
        for form in ("function_call", "hermes"):
            grammar = call_grammar(same[0].functions, form)
            for item in same:
                assert takes_lark(grammar, written(item.expected.calls, form)), item.id
        assert takes(same[0].functions, write_calls(same[0].expected.calls)), same[0].id


TEXT = FunctionSpec("A", "", {"type": "object", "properties": {"A": {"type": "string"}}, "required": ["A"]})
LISTED = FunctionSpec("A", "", {"type": "object", "properties": {"A": {"enum": ["a\x7fb"]}}, "required": ["A"]})


@settings(max_examples=30, deadline=None)
@example((TEXT, Call("A", {"A": "<|im_end|>"})), [], "function_call")
@example((TEXT, Call("A", {"A": "<|im_end|>"})), [], "hermes")
@example((TEXT, Call("A", {"A": "a\x7fb"})), [], "function_call")
@example((LISTED, Call("A", {"A": "a\x7fb"})), [], "function_call")
@given(calls_to(), st.lists(specs(), max_size=2), st.sampled_from(["function_call", "hermes"]))
def test_a_call_made_from_the_schema_can_be_written(
    made: tuple[FunctionSpec, Call], others: list[FunctionSpec], form: Form
) -> None:
    spec, call = made
    named = {each.name: each for each in [*others, spec]}
    assert takes(list(named.values()), written([call], form), form)


@settings(max_examples=30, deadline=None)
@given(calls_to(), STRING)
def test_no_other_function_and_no_other_argument_can_be_written(made: tuple[FunctionSpec, Call], word: str) -> None:
    spec, call = made
    if word != spec.name:
        assert not takes([spec], write_calls([replace(call, name=word)]))
    if word not in spec.parameters["properties"]:
        assert not takes([spec], write_calls([replace(call, arguments={**call.arguments, word: 1})]))


@settings(max_examples=30, deadline=None)
@given(calls_to(), st.data())
def test_no_value_of_another_type_can_be_written(made: tuple[FunctionSpec, Call], data: st.DataObject) -> None:
    spec, call = made
    scalars = {"string": 1, "integer": "1", "number": "1", "boolean": "true", "array": "x", "object": "x"}
    typed = [name for name in call.arguments if spec.parameters["properties"][name].get("type") in scalars]
    if typed:
        name = data.draw(st.sampled_from(typed))
        wrong = scalars[spec.parameters["properties"][name]["type"]]
        assert not takes([spec], write_calls([replace(call, arguments={**call.arguments, name: wrong})]))


@given(st.sampled_from(GOOD), st.data())
def test_a_call_that_is_cut_is_no_whole_answer(call: Call, data: st.DataObject) -> None:
    text = write_calls([call])
    assert not takes(FUNCTIONS, text[: data.draw(st.integers(0, len(text) - 1))])
