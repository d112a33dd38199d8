from typing import Any

import pytest
from conversations import FUNCTIONS

from lf_export.functions.answers import Call
from lf_export.functions.spec import FunctionSpec
from lf_export.functions.validate import validate


def found(name: str, arguments: dict[str, Any]) -> list[tuple[str, str]]:
    return [(error.kind, error.path) for error in validate(Call(name, arguments), FUNCTIONS)]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("get_weather", {"city": "Paris"}),
        ("get_weather", {"units": "metric", "days": 3.0, "city": ""}),
        ("sendEmail", {"to": [], "body": {"title": "x", "urgent": True}, "delay": 2}),
    ],
)
def test_a_call_that_the_function_takes_has_no_mistake(name: str, arguments: dict[str, Any]) -> None:
    assert found(name, arguments) == []


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("getWeather", {"city": "Paris"}, [("unknown_function", "")]),
        ("get_weather", {}, [("missing_argument", "city")]),
        ("get_weather", {"city": "P", "zip": "1"}, [("extra_argument", "zip")]),
        ("get_weather", {"city": 5}, [("wrong_type", "city")]),
        ("get_weather", {"city": "P", "days": "3"}, [("wrong_type", "days")]),
        ("get_weather", {"city": "P", "days": True}, [("wrong_type", "days")]),
        ("get_weather", {"city": "P", "days": 2.5}, [("wrong_type", "days")]),
        ("get_weather", {"city": "P", "days": None}, [("wrong_type", "days")]),
        ("get_weather", {"city": "P", "days": 11}, [("wrong_value", "days")]),
        ("get_weather", {"city": "P", "days": 0}, [("wrong_value", "days")]),
        ("get_weather", {"city": "P", "units": "kelvin"}, [("enum", "units")]),
        ("sendEmail", {"to": ["a", 5], "body": {"title": "x"}}, [("nested", "to[1]")]),
        ("sendEmail", {"to": [], "body": {}}, [("nested", "body.title")]),
        ("sendEmail", {"to": [], "body": {"title": "x", "cc": 1}}, [("nested", "body.cc")]),
        ("sendEmail", {"body": {"title": 5}, "x": 1, "to": 1}, None),
    ],
)
def test_each_mistake_has_its_kind(name: str, arguments: dict[str, Any], expected: Any) -> None:
    if expected is None:  # several at once, in the order of the arguments
        expected = [("nested", "body.title"), ("extra_argument", "x"), ("wrong_type", "to")]
    assert found(name, arguments) == expected


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": ["string", "null"]}, None, 5),
        ({"type": "string", "nullable": True}, None, 5),
        ({"const": 1}, 1.0, True),
        ({"type": "float"}, 1.5, "1.5"),
        ({"type": "dict"}, {"any": 1}, []),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, 5, 5.5),
        ({"oneOf": [{"type": "string", "enum": ["a"]}, {"type": "integer"}]}, "a", "b"),
        ({"allOf": [{"minimum": 1}, {"maximum": 3}]}, 2, 4),
        ({"exclusiveMinimum": 1}, 2, 1),
        ({"exclusiveMaximum": 1}, 0, 1),
        ({"type": "string", "minLength": 2}, "ab", "a"),
        ({"type": "array", "maxItems": 1}, [1], [1, 2]),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, {"a": 1}, {"a": "1"}),
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": True}, {"b": 1}, 5),
        ({"$ref": "#/$defs/short"}, "ab", "abc"),
        ({"type": "unheard-of"}, object, False),
        (True, 5, object),
        (False, object, 5),
    ],
)
def test_the_keywords_that_tools_use_are_checked(schema: Any, good: Any, bad: Any) -> None:
    parameters = {
        "type": "object",
        "properties": {"x": schema},
        "$defs": {"short": {"type": "string", "maxLength": 2}},
    }
    functions = (FunctionSpec("f", "", parameters),)
    if good is not object:
        assert validate(Call("f", {"x": good}), functions) == []
    if bad is not object:
        errors = validate(Call("f", {"x": bad}), functions)
        assert bool(errors) == (schema != {"type": "unheard-of"})
        assert all(error.argument == "x" for error in errors)


def test_a_schema_that_holds_itself_ends() -> None:
    tree = {"type": "object", "properties": {"below": {"$ref": "#/properties/tree"}}}
    functions = (FunctionSpec("f", "", {"type": "object", "properties": {"tree": tree}}),)
    assert validate(Call("f", {"tree": {"below": {"below": {}}}}), functions) == []
    value: dict[str, Any] = {}
    for _ in range(200):
        value = {"below": value}
    assert [error.kind for error in validate(Call("f", {"tree": value}), functions)] == ["nested"]
