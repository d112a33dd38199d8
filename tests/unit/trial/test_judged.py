"""A call is judged argument by argument, by its Pydantic model, in plain words."""

import json
from typing import Any

import pytest

from lf_export.functions.dialects import dialect_for
from lf_export.functions.models import arguments_model
from lf_export.functions.spec import FunctionSpec
from lf_export.trial.judged import Judged, judge

SPEC = FunctionSpec(
    "book",
    "",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "nights": {"type": "integer", "minimum": 1},
            "kind": {"type": "string", "enum": ["hotel", "flat"]},
            "guests": {"type": "array", "items": {"type": "object", "properties": {"age": {"type": "integer"}}}},
            "a.b": {"type": ["integer", "string"]},
        },
        "required": ["city", "nights"],
    },
)
LARGE = FunctionSpec("deep", "", {"type": "object", "properties": {"x": {"type": "object"}}})


def judged(arguments: dict[str, Any], name: str = "book") -> Judged:
    text = json.dumps({"function_call": {"name": name, "arguments": arguments}})
    return judge(text, dialect_for("llama-functions"), [SPEC, LARGE])


def problems(arguments: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    (call,) = judged(arguments).calls
    return {argument.name: argument.problems for argument in call.arguments if argument.problems}


def test_a_right_call_fits_in_every_argument() -> None:
    found = judged({"city": "Köln", "nights": 2, "kind": "flat", "guests": [{"age": 3}], "a.b": "x"})
    (call,) = found.calls
    assert (found.kind, call.valid, call.name) == ("call", True, "book")
    assert [(each.name, each.value) for each in call.arguments][:2] == [("city", '"Köln"'), ("nights", "2")]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"nights": 2}, {"city": ("city is required and not given",)}),
        ({"city": "x", "nights": "2"}, {"nights": ("nights is string, expected integer",)}),
        ({"city": "x", "nights": 0}, {"nights": ("nights is 0, expected at least 1",)}),
        ({"city": "x", "nights": 1, "kind": "tent"}, {"kind": ("kind is 'tent', expected one of ['hotel', 'flat']",)}),
        ({"city": "x", "nights": 1, "pets": 1}, {"pets": ("pets is not one of the function's",)}),
        (
            {"city": "x", "nights": 1, "guests": [{"age": 1}, {"age": "2"}]},
            {"guests": ("guests[1].age is string, expected integer",)},
        ),
        ({"city": "x", "nights": 1, "a.b": [1]}, {"a·b": ("a·b is array, expected integer or string",)}),
        ({}, {"city": ("city is required and not given",), "nights": ("nights is required and not given",)}),
        # where the two checks differ the stricter one is shown
        ({"city": "x", "nights": 2.0}, {"nights": ("nights expected a whole number",)}),
    ],
)
def test_each_mistake_stands_at_its_argument(arguments: dict[str, Any], expected: dict[str, tuple[str, ...]]) -> None:
    assert problems(arguments) == expected


def test_what_pydantic_refuses_is_never_shown_as_fitting() -> None:
    for arguments in (
        {},
        {"city": 1, "nights": 1},
        {"city": "x", "nights": True},
        {"city": "x", "nights": 1, "kind": 3},
    ):
        assert arguments_model(SPEC).error(arguments) is not None
        assert problems(arguments)


def test_an_unknown_function_is_named_beside_those_there_are() -> None:
    (call,) = judged({"x": 1}, "fly").calls
    assert not call.valid
    assert call.problem == "no function is named fly; the functions are: book, deep"


@pytest.mark.parametrize(
    ("text", "kind"), [("It is warm.", "prose"), ('{"function_call": {"name": "bo', "malformed"), (" </s>", "empty")]
)
def test_what_is_no_call_is_said_to_be_none(text: str, kind: str) -> None:
    assert judge(text, dialect_for("llama-functions"), [SPEC]) == Judged(kind, ())
