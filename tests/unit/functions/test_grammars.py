from typing import Any

import pytest
from conversations import BAD, FUNCTIONS, GOOD
from grammar_takers import takes

from lf_export.errors import InputError
from lf_export.functions.answers import Call, write_calls
from lf_export.functions.grammars import call_grammar
from lf_export.functions.spec import FunctionSpec


def only(schema: Any, required: bool = True) -> tuple[FunctionSpec, ...]:
    return (FunctionSpec("f", "", {"type": "object", "properties": {"x": schema}, "required": ["x"] * required}),)


@pytest.mark.parametrize("call", GOOD)
def test_the_grammar_takes_every_good_call_alone_and_repeated(call: Call) -> None:
    assert takes(FUNCTIONS, write_calls([call]))
    assert takes(FUNCTIONS, write_calls([call, GOOD[0]]))


@pytest.mark.parametrize("call", BAD)
def test_the_grammar_takes_no_bad_call(call: Call) -> None:
    assert not takes(FUNCTIONS, write_calls([call]))


def test_the_grammar_takes_little_whitespace_around_a_call_and_nothing_else() -> None:
    text = write_calls(GOOD[:1])
    for same in (f" {text} ", f"{text}\n", f"\n\n{text}", text.replace(":", ": ").replace(",", ", ")):
        assert takes(FUNCTIONS, same), same
    for other in ("", "   " + text, f"{text} ok", text[:-1], text.replace(":", " :"), text.replace("{", "{ ")):
        assert not takes(FUNCTIONS, other), other


def test_the_hermes_grammar_writes_tags() -> None:
    one = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}\n</tool_call>'
    assert takes(FUNCTIONS, one, "hermes")
    assert takes(FUNCTIONS, f"{one}\n{one}", "hermes")
    assert takes(FUNCTIONS, one.replace("\n", ""), "hermes")
    assert not takes(FUNCTIONS, write_calls(GOOD[:1]), "hermes")


def test_an_answer_opens_a_call_with_the_dialect_s_own_word() -> None:
    plain, hermes = call_grammar(FUNCTIONS), call_grammar(FUNCTIONS, "hermes")
    assert plain.opened(' {"fun')
    assert hermes.opened("\n<tool_call>\n")
    assert not any(grammar.opened(text) for grammar in (plain, hermes) for text in ("", " ", "Sure: {", "<tool"))
    assert hermes.may_open(" <tool")
    assert plain.may_open(" ")
    assert not plain.may_open("Sure")


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
    assert takes(only(schema), write_calls([Call("f", {"x": good})]))
    if bad is not None:
        assert not takes(only(schema), write_calls([Call("f", {"x": bad})]))


def test_a_schema_may_hold_itself() -> None:
    tree = {"type": "object", "properties": {"x": {"$ref": "#/properties/x"}, "leaf": {"type": "string"}}}
    assert takes(only(tree), write_calls([Call("f", {"x": {"x": {"x": {"leaf": "y"}}, "leaf": "z"}})]))
    assert not takes(only(tree), write_calls([Call("f", {"x": {"x": {"x": {"leaf": 1}}}})]))


def test_a_function_without_parameters_has_a_grammar() -> None:
    functions = (FunctionSpec("now", "", {"type": "object", "properties": {}}),)
    assert takes(functions, '{"function_call":{"name":"now","arguments":{}}}')


def test_optional_arguments_may_be_left_out_in_every_place() -> None:
    properties = {name: {"type": "integer"} for name in "abcd"}
    for required in (["b"], ["a", "d"], [], ["d"], ["b", "c"]):
        spec = FunctionSpec("f", "", {"type": "object", "properties": properties, "required": required})
        for chosen in range(16):
            names = [name for at, name in enumerate("abcd") if chosen >> at & 1]
            text = write_calls([Call("f", dict.fromkeys(names, 1))])
            assert takes([spec], text) == set(required).issubset(names), (required, names)


def test_no_functions_have_no_grammar() -> None:
    with pytest.raises(InputError, match="at least one function"):
        call_grammar(())
