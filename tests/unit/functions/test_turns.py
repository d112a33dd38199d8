from typing import Any

import pytest
from conversations import calls, returns, says, user

from lf_export.errors import InputError
from lf_export.functions.turns import read_turns, responses_as_user


def test_results_of_parallel_calls_share_one_user_turn() -> None:
    messages = [user("a"), calls(("f", {}), ("g", {})), returns('{"x": 1}', 0), returns("7", 1), says("b")]
    turns = responses_as_user(read_turns(messages))
    assert [turn.role for turn in turns] == ["user", "assistant", "user", "assistant"]
    assert turns[2].text == (
        '{"function_response":{"name":"f","content":{"x":1}}}\n{"function_response":{"name":"g","content":"7"}}'
    )


def test_a_tool_message_may_name_its_function() -> None:
    (_, turn) = read_turns([user("a"), {"role": "tool", "name": "f", "content": "x"}])
    assert turn.name == "f"


def test_results_without_names_are_those_of_the_calls_in_order() -> None:
    result = {"role": "tool", "content": "x"}
    turns = read_turns([user("a"), calls(("f", {}), ("g", {})), result, result])
    assert [turn.name for turn in turns[2:]] == ["f", "g"]


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert read_turns([user("x") | {"content": parts}])[0].text == "ab"


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "at least one message"),
        ("hello", "at least one message"),
        ([5], r"messages\[0\]: expected a message object"),
        ([{"role": "robot", "content": ""}], r"messages\[0\].role: expected one of system, developer, user"),
        ([{"role": ["user"], "content": ""}], "role: expected one of"),
        ([{"role": "user"}], r"messages\[0\].content: expected text, found NoneType"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "expected text, found list"),
        ([user("a"), {"role": "system", "content": "b"}], "a system message stands only at the start"),
        ([user("a"), returns("x")], "a tool message without a call before it"),
        ([user("a"), calls(("f", {})), returns("x", 1)], "a tool message without a call before it"),
        ([user("a"), {"role": "tool", "content": "x"}], "a tool message without a call before it"),
    ],
)
def test_another_form_is_refused(messages: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_turns(messages)


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        read_turns([5, {"role": "user"}], "row.messages")
    assert len(caught.value.message.splitlines()) == 2
