"""A dialect's frame gives the dialect's own text, or there is none."""

from typing import Any

import pytest
from models import CHATML, tiny_tokenizer
from templates import DROPS_SYSTEM, HERMES, NO_SYSTEM, SHOUTS

from lf_export.errors import InputError
from lf_export.functions.dialects import Dialect, dialect_for, functions_block, text_of
from lf_export.functions.frame import frame_of
from lf_export.functions.spec import FunctionSpec

SPEC = FunctionSpec("get_weather", 'The "weather"', {"type": "object", "properties": {"city": {"type": "string"}}})
CONVERSATIONS: list[tuple[str, list[str]]] = [
    ("", ["What is the weather?"]),
    ("Be brief.", ["Hello"]),
    ("Be brief.\n\nAlways.", ["Hello", "Hi", "And now {{ .Role }}?", "{% x %}", 'é \\ "q" <|im_end|>']),
]


def chat(template: str) -> Dialect:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return dialect_for("chat-template", tokenizer)


def messages(system: str, turns: list[str]) -> list[dict[str, Any]]:
    head = [{"role": "system", "content": system}] if system else []
    return head + [{"role": ("user", "assistant")[at % 2], "content": turn} for at, turn in enumerate(turns)]


@pytest.mark.parametrize("dialect", [chat(CHATML), chat(HERMES), dialect_for("llama-functions")], ids=["a", "b", "c"])
@pytest.mark.parametrize(("system", "turns"), CONVERSATIONS)
def test_the_frame_s_text_is_the_dialect_s(dialect: Dialect, system: str, turns: list[str]) -> None:
    expected = dialect.bos + text_of(dialect.render(messages(system, turns), (), generate=True))
    assert frame_of(dialect).text(system, turns) == expected


@pytest.mark.parametrize("dialect", [chat(CHATML), dialect_for("llama-functions")], ids=["chatml", "llama-functions"])
def test_functions_are_a_system_message_where_the_dialect_has_the_block(dialect: Dialect) -> None:
    expected = dialect.bos + text_of(dialect.render(messages("Be brief.", ["Hello"]), [SPEC], generate=True))
    assert frame_of(dialect).text(f"{functions_block([SPEC])}\n\nBe brief.", ["Hello"]) == expected


@pytest.mark.parametrize("template", [NO_SYSTEM, DROPS_SYSTEM, SHOUTS])
def test_a_template_that_is_more_than_a_frame_has_none(template: str) -> None:
    with pytest.raises(InputError):
        frame_of(chat(template))


def test_a_template_that_counts_its_turns_has_none() -> None:
    counting = CHATML.replace("{{'<|im_start|>' +", "{{ loop.index }}{{'<|im_start|>' +")
    assert counting != CHATML
    with pytest.raises(InputError):
        frame_of(chat(counting))
