"""Pydantic models of functions: strict, closed, bounded."""

import time
from typing import Any

import pytest
from conversations import FUNCTIONS

from lf_export.errors import InputError
from lf_export.functions.answers import Call
from lf_export.functions.models import arguments_model, schema_error
from lf_export.functions.spec import FunctionSpec, from_openai
from lf_export.functions.validate import validate


def spec(schema: Any, **more: Any) -> FunctionSpec:
    return FunctionSpec("f", "", {"type": "object", "properties": {"x": schema}, **more})


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("get_weather", {"city": "Paris", "days": 3, "units": "metric"}, None),
        ("sendEmail", {"to": ["a"], "body": {"title": "x", "urgent": True}, "delay": 2}, None),
        ("getWeather", {}, "unknown_function"),
        ("get_weather", {}, "missing"),
        ("get_weather", {"city": "P", "zip": 1}, "extra_forbidden"),
        ("get_weather", {"city": 5}, "string_type"),
        ("get_weather", {"city": "P", "days": "3"}, "int_type"),
        ("get_weather", {"city": "P", "days": True}, "int_type"),
        ("get_weather", {"city": "P", "days": 3.0}, "int_type"),
        ("get_weather", {"city": "P", "days": 11}, "less_than_equal"),
        ("get_weather", {"city": "P", "units": "kelvin"}, "literal_error"),
        ("sendEmail", {"to": "a", "body": {"title": "x"}}, "list_type"),
        ("sendEmail", {"to": ["a", 1], "body": {"title": "x"}}, "string_type"),
        ("sendEmail", {"to": [], "body": {"title": "x", "cc": 1}}, "extra_forbidden"),
        ("sendEmail", {"to": [], "body": {}}, "missing"),
        ("sendEmail", {"to": [], "body": "x"}, "model_type"),
    ],
)
def test_the_first_mistake_has_pydantics_name(name: str, arguments: dict[str, Any], error: str | None) -> None:
    assert schema_error(Call(name, arguments), FUNCTIONS) == error


@pytest.mark.parametrize(
    ("schema", "good", "bad", "error"),
    [
        ({"type": ["string", "null"]}, None, 5, "string_type"),
        ({"type": "string", "nullable": True}, None, 5, "string_type"),
        ({"const": 1}, 1.0, True, "literal_error"),
        ({"type": "float"}, 1, "1.5", "float_type"),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, 5, 5.5, "string_type"),
        ({"allOf": [{"minimum": 1}, {"maximum": 3}]}, 2, 4, "less_than_equal"),
        ({"type": "string", "minLength": 2}, "ab", "a", "string_too_short"),
        ({"type": "array", "maxItems": 1}, [1], [1, 2], "too_long"),
        ({"type": "string", "pattern": "^a+$"}, "aa", "b", "string_pattern_mismatch"),
        ({"type": "string", "pattern": "(?=look)"}, "anything", 5, "string_type"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, {"a": 1}, {"a": "1"}, "int_type"),
        (
            {"type": "object", "properties": {"a": {}}, "additionalProperties": {"type": "integer"}},
            {"a": "x", "b": 1},
            {"b": "1"},
            "int_type",
        ),
        ({"properties": {"a": {"type": "integer"}}}, "no object", {"a": "1"}, "int_type"),
        ({"$ref": "#/$defs/short"}, "ab", "abc", "string_too_long"),
        (
            {"type": "object", "properties": {"_a": {"type": "string"}, "model_x": {}}},
            {"_a": "s"},
            {"_a": 1},
            "string_type",
        ),
    ],
)
def test_the_keywords_that_tools_use_are_in_the_model(schema: Any, good: Any, bad: Any, error: str) -> None:
    function = spec(schema, **{"$defs": {"short": {"type": "string", "maxLength": 2}}})
    assert schema_error(Call("f", {"x": good}), [function]) is None
    assert schema_error(Call("f", {"x": bad}), [function]) == error


def test_a_schema_that_holds_itself_checks_values_of_any_depth_that_an_answer_can_have() -> None:
    tree = {"type": "object", "properties": {"below": {"$ref": "#/$defs/tree"}, "n": {"type": "integer"}}}
    function = spec({"$ref": "#/$defs/tree"}, **{"$defs": {"tree": tree}})
    assert schema_error(Call("f", {"x": {"below": {"below": {"n": 1}}}}), [function]) is None
    assert schema_error(Call("f", {"x": {"below": {"below": {"n": "1"}}}}), [function]) == "int_type"


def deep(levels: int) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


def doubling(levels: int) -> dict[str, Any]:
    steps = {f"a{at}": {"anyOf": [{"$ref": f"#/$defs/a{at + 1}"}] * 2} for at in range(levels)}
    return {**steps, f"a{levels}": {"type": "integer"}}


HOSTILE: dict[str, tuple[Any, dict[str, Any]]] = {
    "a reference to itself": ({"$ref": "#/properties/x"}, {}),
    "references in a circle": ({"$ref": "#/$defs/a"}, {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}),
    "alternatives of itself": ({"anyOf": [{"$ref": "#/properties/x"}, {"$ref": "#/properties/x"}]}, {}),
    "all of itself": ({"allOf": [{"$ref": "#/properties/x"}] * 3}, {}),
    "doubling references": ({"$ref": "#/$defs/a0"}, doubling(40)),
    "a reference to nowhere": ({"$ref": "#/$defs/none"}, {}),
    "a slow pattern": ({"type": "string", "pattern": "^(a+)+$"}, {}),
    "a huge pattern": ({"type": "string", "pattern": "((a{1000}){1000}){1000}"}, {}),
    "a tower of counts": ({"type": "string", "pattern": "(((a{1,90}){1,90}){1,90}){1,90}"}, {}),
    "types that are none": ({"type": {"a": 1}, "enum": 5, "anyOf": 5, "allOf": {}, "required": "x"}, {}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_schema_is_checked_or_refused_in_bounded_time(name: str) -> None:
    schema, defs = HOSTILE[name]
    function = spec(schema, **{"$defs": defs})
    started = time.process_time()
    for value in ("a" * 200 + "b", {"x": {"x": 1}}, [[[]]], 5, None):
        validate(Call("f", {"x": value}), [function])
        try:
            schema_error(Call("f", {"x": value}), [function])
        except InputError:
            assert name == "a huge pattern"
    assert time.process_time() - started < 10


@pytest.mark.parametrize("schema", [deep(140), {"enum": list(range(30_000))}], ids=["deep", "large"])
def test_a_schema_past_the_bounds_is_refused_where_functions_are_read(schema: Any) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": dict(spec(schema).parameters)}}
    with pytest.raises(InputError, match=r"tools\[0\]\.parameters: (is nested more than|has more than)"):
        from_openai([tool])


def test_a_model_of_a_schema_past_the_bounds_is_refused() -> None:
    with pytest.raises(InputError, match="expected a smaller one"):
        arguments_model(spec(deep(80)))
