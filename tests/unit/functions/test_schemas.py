import json
from typing import Any

import jsonschema
import pytest
from conversations import FUNCTIONS
from gbnf_reader import Grammar

from lf_export.errors import InputError
from lf_export.functions.answers import Call, write_calls
from lf_export.functions.schemas import gbnf, json_schema
from lf_export.functions.spec import FunctionSpec

MAIL = {"to": ["a@b.c", 'say "hi"\n'], "body": {"title": "Zürich \\", "urgent": False}, "delay": -1.5e3}
GOOD = [
    Call("get_weather", {"city": "Paris"}),
    Call("get_weather", {"city": "", "days": 3}),
    Call("get_weather", {"city": "Paris", "units": "metric"}),
    Call("get_weather", {"city": "Paris", "days": 1, "units": "imperial"}),
    Call("sendEmail", MAIL),
    Call("sendEmail", {"to": [], "body": {"title": ""}}),
]
BAD = [
    Call("other", {}),
    Call("get_weather", {}),
    Call("get_weather", {"city": 5}),
    Call("get_weather", {"city": "Paris", "zip": "1"}),
    Call("get_weather", {"city": "Paris", "units": "kelvin"}),
    Call("get_weather", {"city": "Paris", "days": "3"}),
    Call("sendEmail", {"to": [5], "body": {"title": "x"}}),
    Call("sendEmail", {"to": [], "body": {}}),
    Call("sendEmail", {"to": [], "body": {"title": "x", "cc": "y"}}),
]


def only(schema: Any, required: bool = True) -> tuple[FunctionSpec, ...]:
    return (FunctionSpec("f", "", {"type": "object", "properties": {"x": schema}, "required": ["x"] * required}),)


@pytest.mark.parametrize("call", GOOD)
def test_the_grammar_takes_every_good_call_alone_and_repeated(call: Call) -> None:
    grammar = Grammar(gbnf(FUNCTIONS))
    assert grammar.matches(write_calls([call]))
    assert grammar.matches(write_calls([call, GOOD[0]]))


@pytest.mark.parametrize("call", BAD)
def test_the_grammar_takes_no_bad_call(call: Call) -> None:
    assert not Grammar(gbnf(FUNCTIONS)).matches(write_calls([call]))


def test_the_grammar_takes_nothing_around_a_call_but_the_padding() -> None:
    text = write_calls(GOOD[:1])
    for other in ("", f" {text} ", f"{text} ok", f"{text}\n", text[:-1], json.dumps(json.loads(text))):
        assert not Grammar(gbnf(FUNCTIONS)).matches(other)
    assert Grammar(gbnf(FUNCTIONS, padding=" ")).matches(f" {text} ")


def test_the_hermes_grammar_writes_tags_and_spaces() -> None:
    grammar = Grammar(gbnf(FUNCTIONS, "hermes"))
    one = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}\n</tool_call>'
    assert grammar.matches(one)
    assert grammar.matches(f"{one}\n{one}")
    assert not grammar.matches(write_calls(GOOD[:1]))


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": ["string", "null"]}, None, 1),
        ({"type": "integer", "nullable": True}, None, "x"),
        ({"anyOf": [{"type": "integer"}, {"enum": ["a", 2]}]}, "a", "b"),
        ({"const": 'say "x"'}, 'say "x"', "x"),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 1}, [1, 2], []),
        ({"type": "object"}, {"any": [1, {"deep": None}]}, []),
        ({"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "number"}}}, {"b": 1.5}, {"c": 1}),
        ({}, {"any": ["thing"]}, None),
        ({"$ref": "#/properties/x/properties/x"}, "anything", None),
    ],
)
def test_each_kind_of_schema_has_its_rules(schema: Any, good: Any, bad: Any) -> None:
    grammar = Grammar(gbnf(only(schema)))
    assert grammar.matches(write_calls([Call("f", {"x": good})]))
    if bad is not None:
        assert not grammar.matches(write_calls([Call("f", {"x": bad})]))


def test_a_schema_may_hold_itself() -> None:
    tree = {"type": "object", "properties": {"x": {"$ref": "#/properties/x"}, "leaf": {"type": "string"}}}
    grammar = Grammar(gbnf(only(tree)))
    assert grammar.matches(write_calls([Call("f", {"x": {"x": {"x": {"leaf": "y"}}, "leaf": "z"}})]))
    assert not grammar.matches(write_calls([Call("f", {"x": {"x": {"x": {"leaf": 1}}}})]))
    jsonschema.validate({"function_call": {"name": "f", "arguments": {"x": {"x": {}}}}}, json_schema(only(tree)))


def test_a_function_without_parameters_has_a_grammar() -> None:
    functions = (FunctionSpec("now", "", {"type": "object", "properties": {}}),)
    assert Grammar(gbnf(functions)).matches('{"function_call":{"name":"now","arguments":{}}}')


def test_optional_arguments_may_be_left_out_in_every_place() -> None:
    properties = {name: {"type": "integer"} for name in "abcd"}
    for required in (["b"], ["a", "d"], [], ["d"], ["b", "c"]):
        spec = FunctionSpec("f", "", {"type": "object", "properties": properties, "required": required})
        grammar = Grammar(gbnf([spec]))
        for chosen in range(16):
            names = [name for at, name in enumerate("abcd") if chosen >> at & 1]
            text = write_calls([Call("f", dict.fromkeys(names, 1))])
            assert grammar.matches(text) == set(required).issubset(names), (required, names)


@pytest.mark.parametrize("call", GOOD)
def test_the_json_schema_takes_every_good_call(call: Call) -> None:
    jsonschema.validate(json.loads(write_calls([call])), json_schema(FUNCTIONS))
    jsonschema.validate(json.loads(write_calls([call]))["function_call"], json_schema(FUNCTIONS, "hermes"))


@pytest.mark.parametrize("call", BAD)
def test_the_json_schema_takes_no_bad_call(call: Call) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(write_calls([call])), json_schema(FUNCTIONS))


def test_no_functions_have_no_grammar() -> None:
    for build in (gbnf, json_schema):
        with pytest.raises(InputError, match="at least one function"):
            build(())
