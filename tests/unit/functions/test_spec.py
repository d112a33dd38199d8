import json

import pytest
from conversations import EMAIL, FUNCTIONS, WEATHER

from lf_export.errors import InputError
from lf_export.functions.spec import (
    FunctionSpec,
    from_llama_functions,
    from_openai,
    resolved,
    schema_hash,
    to_llama_functions,
    to_openai,
)

# A function of a published row of the dataset: nested properties are an object, and keywords are sorted.
PUBLISHED = (
    '[{"name":"computeQuizScore","description":"Calculates the score of a quiz based on the answers provided by the '
    'user.","parameters":[{"description":"An array containing the user\'s answers.","items":{"description":"An object '
    'representing a single answer.","properties":{"questionId":{"description":"The ID of the question being answered.",'
    '"minimum":1,"type":"number"},"selectedOption":{"description":"The option selected by the user for the given '
    'question.","enum":["A","B","C","D"],"type":"string"}},"type":"object"},"name":"answers","type":"array"},'
    '{"description":"The total number of questions in the quiz.","minimum":1,"name":"totalQuestions","optional":true,'
    '"type":"number"}]}]'
)


def test_a_published_function_comes_back_byte_for_byte() -> None:
    specs = from_llama_functions(json.loads(PUBLISHED))
    again = json.dumps([to_llama_functions(spec) for spec in specs], separators=(",", ":"))
    assert again == PUBLISHED


def test_absent_optional_means_required_at_every_level() -> None:
    (spec,) = from_llama_functions(json.loads(PUBLISHED))
    assert spec.parameters["required"] == ["answers"]
    assert spec.parameters["properties"]["answers"]["items"]["required"] == ["questionId", "selectedOption"]


def test_openai_tools_come_back_as_they_were() -> None:
    assert [to_openai(spec) for spec in FUNCTIONS] == [WEATHER, EMAIL]


def test_a_function_without_parameters_takes_none() -> None:
    (spec,) = from_openai([{"type": "function", "function": {"name": "now"}}])
    assert spec == FunctionSpec("now", "", {"type": "object", "properties": {}})
    assert to_llama_functions(spec) == {"name": "now", "parameters": []}


def test_optional_parameters_are_marked_in_the_list_form() -> None:
    entries = to_llama_functions(FUNCTIONS[1])["parameters"]
    assert [entry["name"] for entry in entries if entry.get("optional")] == ["delay"]
    assert entries[1]["properties"]["urgent"] == {"optional": True, "type": "boolean"}
    assert list(entries[1]) == sorted(entries[1])


def test_every_mistake_in_tools_is_told_at_once() -> None:
    tools = [
        {"type": "function", "function": {"description": "no name"}},
        {"type": "function", "function": {"name": "a", "parameters": {"type": "array"}}},
        {"type": "function", "function": {"name": "b", "parameters": {"required": ["x"], "properties": {}}}},
        {"type": "function", "function": {"name": "c", "description": 5}},
        "d",
    ]
    with pytest.raises(InputError) as caught:
        from_openai(tools, "row")
    lines = caught.value.message.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "row[0].name",
        "row[1].parameters",
        "row[2].parameters.required",
        "row[3].description",
        "row[4]",
    ]


def test_two_functions_of_one_name_are_refused() -> None:
    with pytest.raises(InputError, match="second function named 'get_weather'"):
        from_openai([WEATHER, WEATHER])


@pytest.mark.parametrize(
    "functions",
    [
        {"name": "a"},
        [{"name": "a", "parameters": {"x": {}}}],
        [{"name": "a", "parameters": [{"type": "string"}]}],
        [{"name": "a", "parameters": [{"name": "x"}, {"name": "x"}]}],
        [5],
    ],
)
def test_other_list_forms_are_refused(functions: object) -> None:
    with pytest.raises(InputError, match=r"expected|second"):
        from_llama_functions(functions)


def test_the_hash_ignores_wording_and_order_but_not_types() -> None:
    def spec(name: str, description: str, **types: str) -> FunctionSpec:
        properties = {key: {"type": kind, "description": description} for key, kind in types.items()}
        return FunctionSpec(name, description, {"type": "object", "properties": properties})

    first = schema_hash(spec("getWeather", "one", city="string", days="integer"))
    assert first == schema_hash(spec("get_weather", "two", days="integer", city="string"))
    assert first != schema_hash(spec("get_weather", "two", days="number", city="string"))
    assert first != schema_hash(spec("get_wind", "two", days="integer", city="string"))


def test_the_hash_sees_nested_parameters() -> None:
    def spec(inner: str) -> FunctionSpec:
        item = {"type": "object", "properties": {inner: {"type": "string"}}}
        return FunctionSpec("f", "", {"type": "object", "properties": {"a": {"type": "array", "items": item}}})

    assert schema_hash(spec("x")) != schema_hash(spec("y"))


def test_references_are_followed_and_circles_allow_anything() -> None:
    root = {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"type": "string"}, "loop": {"$ref": "#/$defs/loop"}}}
    assert resolved({"$ref": "#/$defs/a"}, root) == {"type": "string"}
    assert resolved({"$ref": "#/$defs/loop"}, root) is True
    assert resolved({"$ref": "#/$defs/none"}, root) is True
