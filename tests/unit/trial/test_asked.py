"""What is typed into the page is read, or refused in words that say where."""

import json

import pytest

from lf_export.errors import InputError
from lf_export.trial.asked import MOST_CHARACTERS, read_functions, read_message

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
BARE = {"name": "get_weather", "description": "Weather", "parameters": SCHEMA}
LISTED = {"name": "get_weather", "description": "Weather", "parameters": [{"name": "city", "type": "string"}]}


@pytest.mark.parametrize(
    "value",
    [
        [{"type": "function", "function": BARE}],
        [BARE],
        BARE,
        {"functions": [BARE]},
        [LISTED],
        {"functions": [LISTED]},
    ],
)
def test_functions_are_taken_in_every_form_that_is_about(value: object) -> None:
    (spec,) = read_functions(json.dumps(value))
    assert (spec.name, spec.description, spec.parameters) == ("get_weather", "Weather", SCHEMA)


def test_no_functions_are_none() -> None:
    assert read_functions(" \n") == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"name": "x"},\n  {"name" "y"}]', r"line 2, column 11: not JSON: Expecting ':'"),
        ("[" * 100_000, "nested too deeply|not JSON"),
        ('[{"name": "x", "parameters": NaN}]', "NaN is not JSON"),
        ("7", "expected a list of tools, found int"),
        ('["x"]', r"functions\[0\]: expected an object"),
        ('[{"name": ""}]', r"functions\[0\].name: expected a function's name"),
        ('[{"name": "x", "parameters": 3}]', r"functions\[0\].parameters: expected a JSON Schema object"),
        ('[{"name": "x"}, {"name": "x"}]', "a second function named 'x'"),
        ('[{"name": "x", "parameters": [3]}]', r"functions\[0\].parameters\[0\]: expected an object"),
        (" " * (MOST_CHARACTERS + 1), "200,001 characters"),
    ],
)
def test_wrong_functions_are_refused_in_words(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_functions(text)


@pytest.mark.parametrize(("text", "said"), [("", "empty"), (" \n\t", "empty"), ("x" * 200_001, "200,001 characters")])
def test_a_message_that_says_nothing_or_too_much_is_refused(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_message(text)
    assert read_message("  Hi \n") == "Hi"
