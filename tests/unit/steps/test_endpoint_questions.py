"""What a server is asked, and what its replies come to, over both interfaces."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from models import tiny_tokenizer

from lf_export.functions.dialects import dialect_for
from lf_export.functions.llama_functions import LlamaFunctions
from lf_export.runtimes.endpoint_reply import Reply
from lf_export.steps.endpoint_questions import openai_messages, served, shows_as_text

ENDS = frozenset({2})
CALL = {"type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Rome"}'}}
TEXT = '{"function_call":{"name":"get_weather","arguments":{"city":"Rome"}}}'


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer()


def _served(
    tokenizer: Any, text: str = "", calls: Sequence[Mapping[str, Any]] = (), *, native: bool = True, chat: bool = True,
    finish: str = "stop", **more: Any,
) -> Any:  # fmt: skip
    dialect = LlamaFunctions() if native else dialect_for("chat-template", tokenizer)
    reply = Reply(text=text, calls=[dict(call) for call in calls], finish=finish, **more)
    return served(reply, dialect, tokenizer, ENDS, chat=chat)


def test_tool_calls_are_calls(tokenizer: Any) -> None:
    found = _served(tokenizer, "", [CALL])
    assert found.answer.kind == "call"
    assert [(call.name, call.arguments) for call in found.answer.calls] == [("get_weather", {"city": "Rome"})]


@pytest.mark.parametrize("arguments", ['{"city":', "[1]", "", '{"a":1,"a":2}', '{"a":NaN}'])
def test_arguments_that_are_no_json_object_are_malformed(tokenizer: Any, arguments: str) -> None:
    found = _served(tokenizer, "", [{"type": "function", "function": {"name": "get_weather", "arguments": arguments}}])
    assert (found.answer.kind, found.answer.calls) == ("malformed", ())
    assert "get_weather" in found.answer.text


def test_text_beside_calls_is_malformed_and_the_calls_are_kept(tokenizer: Any) -> None:
    found = _served(tokenizer, "Let me see.", [CALL])
    assert found.answer.kind == "malformed"
    assert [call.name for call in found.answer.calls] == ["get_weather"]


def test_a_call_as_text_is_not_what_a_client_of_tools_would_see(tokenizer: Any) -> None:
    found = _served(tokenizer, TEXT)
    assert (found.answer.kind, found.untranslated) == ("malformed", True)
    assert not _served(tokenizer, "It is sunny.").untranslated
    assert _served(tokenizer, "It is sunny.").answer.kind == "prose"


def test_a_call_as_text_is_a_call_where_functions_went_as_text(tokenizer: Any) -> None:
    assert shows_as_text(dialect_for("chat-template", tokenizer))
    for found in (_served(tokenizer, TEXT, native=False), _served(tokenizer, TEXT, chat=False)):
        assert (found.answer.kind, found.untranslated) == ("call", False)


def test_token_ids_are_the_servers_own_and_end_where_the_answer_does(tokenizer: Any) -> None:
    ids = tokenizer("It is", add_special_tokens=False)["input_ids"]
    own = _served(tokenizer, "lost", chat=False, ids=[*ids, 1], completion_tokens=len(ids) + 2)
    assert own.ids == (*ids, 1, 2)
    assert own.answer.text == "It is<|im_start|>"  # the server's text had left it out
    assert _served(tokenizer, "It is").ids == (*ids, 2)
    assert _served(tokenizer, "It is", finish="length").ids == tuple(ids)


def test_messages_have_the_ids_that_servers_insist_on() -> None:
    call = {"function": {"name": "f", "arguments": {"a": 1}}}
    messages = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": [call, CALL | {"id": "mine"}]},
        {"role": "tool", "content": "1"},
        {"role": "tool", "content": "2"},
    ]
    found = openai_messages(messages)
    first, second = found[1]["tool_calls"]
    assert (first["type"], json.loads(first["function"]["arguments"])) == ("function", {"a": 1})
    assert second["id"] == "mine"
    assert [message["tool_call_id"] for message in found[2:]] == [first["id"], "mine"]
    assert messages[1]["tool_calls"][0] is call  # what was given is as it was
    assert "id" not in call
