import json
from typing import Any

import pytest
from conversations import calls, says

from lf_export.errors import InputError
from lf_export.functions.answers import Answer, Call, answer_of, calling, dumps, loads, prose, read_answer, write_calls

ONE = '{"function_call":{"name":"get_weather","arguments":{"city":"Paris"}}}'
PARIS = Call("get_weather", {"city": "Paris"})


def test_a_call_is_compact_json_with_unicode_as_it_is() -> None:
    call = Call("f", {"a": "Zürich “x”", "b": [1, 2.5, None, True]})
    assert write_calls([call]) == '{"function_call":{"name":"f","arguments":{"a":"Zürich “x”","b":[1,2.5,null,true]}}}'


@pytest.mark.parametrize(
    "text", [ONE, f"  {ONE}\n", f"{ONE}</s>", f"{ONE}<|im_end|>\n</s>", json.dumps(json.loads(ONE))]
)
def test_a_call_and_nothing_else_is_a_call(text: str) -> None:
    answer = read_answer(text, ends=("</s>", "<|im_end|>"))
    assert (answer.kind, answer.calls) == ("call", (PARIS,))


def test_parallel_calls_stand_one_a_line() -> None:
    assert read_answer(f"{ONE}\n{ONE}").calls == (PARIS, PARIS)
    assert read_answer(f"{ONE}\n\n{ONE}").kind == "call"
    assert read_answer(f"{ONE}{ONE}").kind == "malformed"
    assert read_answer(f"{ONE} {ONE}").kind == "malformed"


def test_calls_in_an_indented_form_are_read_too() -> None:
    assert read_answer(json.dumps(json.loads(ONE), indent=2)).calls == (PARIS,)


@pytest.mark.parametrize(
    "text",
    [
        f"{ONE} There you go.",
        f"Sure! {ONE}",
        f"{ONE}\nThe weather is fine.",
        ONE[:-1],
        ONE[:20],
        ONE[:5],
        "{",
        ONE + "}",
        ONE.replace('"Paris"', "NaN"),
        ONE.replace('"Paris"', "-Infinity"),
        ONE.replace('"Paris"', "1e999"),
        ONE.replace('"Paris"', "1" * 5000),
        ONE.replace('"city":"Paris"', '"city":"Paris","city":"Rome"'),
        ONE.replace('{"city":"Paris"}', '"{\\"city\\":\\"Paris\\"}"'),
        ONE.replace('{"city":"Paris"}', "[]"),
        ONE.replace('"get_weather"', '""'),
        ONE.replace('"get_weather"', "5"),
        ONE.replace('"get_weather"', "get_weather"),
        ONE.replace('"', "'"),
        f"[{ONE}]",
        '{"function_call":null}',
        '{"function_call":{"name":"f"}}',
        '{"function_call":{"name":"f","arguments":{},"id":1}}',
        '{"function_call":{"name":"f","arguments":{}},"note":"x"}',
        '{"name":"f","arguments":{"a":1}}',
        '{"name":"f","parameters":{"a":1}}',
        '[{"name":"f","arguments":{}}]',
        'I will call {"name": "f", "arguments": {"a": 1}} now',
        '<tool_call>{"name":"f","arguments":{}}</tool_call>',
        "<tool_call>",
        '<functioncall> {"name": "f"}',
        '[TOOL_CALLS] [{"name": "f"}]',
        'get_weather(city="Paris")',
        '[get_weather(city="Paris"), get_weather(city="Rome")]',
        "get_time()",
        f"```json\n{ONE[:-3]}\n```",
        "{" * 3000 + '"function_call":1',
        '{"function_call":' + "[" * 100_000,
    ],
)
def test_an_attempt_that_does_not_read_is_malformed_and_never_prose(text: str) -> None:
    assert read_answer(text).kind == "malformed"


def test_a_call_in_a_code_fence_is_malformed_but_keeps_its_calls() -> None:
    answer = read_answer(f"```json\n{ONE}\n```")
    assert (answer.kind, answer.calls) == ("malformed", (PARIS,))
    assert read_answer(f"```json\n{ONE}\n``` done").calls == ()


@pytest.mark.parametrize(
    "text",
    [
        "It is sunny in Paris.",
        "I do not have a function that can book a table.",
        "To call a function, name it and give its arguments.",
        '{"colour":"red","size":3}',
        '```json\n{"colour": "red"}\n```',
        "[1, 2, 3]",
        "f(x) = x + 1 is a line.",
        "print('hello')",
        "5",
        '"quoted"',
        "null",
        "A set is written {1, 2}.",
        "The name is Bob; the arguments were weak.",
    ],
)
def test_other_text_is_prose(text: str) -> None:
    assert read_answer(text) == Answer("prose", (), text)


@pytest.mark.parametrize("text", ["", " \n", "</s>", " </s></s> "])
def test_nothing_but_end_tokens_is_empty(text: str) -> None:
    assert read_answer(text, ends=("</s>",)) == Answer("empty", (), "")


def test_hermes_calls_are_read_in_their_tags() -> None:
    one = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
    assert read_answer(f"{one}\n{one}", "hermes").calls == (PARIS, PARIS)
    for broken in (one[:-5], f"{one} done", one.replace("arguments", "args"), ONE, one.replace('"Paris"', "NaN")):
        assert read_answer(broken, "hermes").kind == "malformed"


def test_a_message_with_calls_is_a_call() -> None:
    assert answer_of(calls(("get_weather", {"city": "Paris"}))) == calling(PARIS)
    assert answer_of(says(" Hello. ")) == prose("Hello.")
    assert answer_of({"role": "assistant", "content": None}).kind == "empty"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (calls(("f", {})) | {"content": "text"}, "both text and tool_calls"),
        ({"tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}, "arguments: not JSON"),
        ({"tool_calls": [{"function": {"name": "f", "arguments": '{"a":NaN}'}}]}, "NaN is not JSON"),
        ({"tool_calls": [{"function": {"name": "f", "arguments": '{"a":1,"a":2}'}}]}, "a key stands twice"),
        ({"tool_calls": [{"function": {"name": "f", "arguments": "[]"}}]}, "expected a JSON object"),
        ({"tool_calls": [{"name": "f"}]}, "expected an object with function.name"),
        ({"tool_calls": "f"}, "expected a list"),
        ({"content": 5}, "expected text"),
    ],
)
def test_a_message_of_another_form_is_refused(message: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        answer_of(message)


def test_arguments_that_json_cannot_hold_are_refused() -> None:
    for value in (float("nan"), float("inf"), {1, 2}):
        with pytest.raises(InputError, match="arguments that JSON cannot hold"):
            dumps({"a": value})


def test_half_a_surrogate_pair_can_be_written_as_utf8() -> None:
    assert loads(dumps("\ud83d")) == "\ud83d"
    assert dumps("a\ud83d").encode() == b'"a\\ud83d"'
