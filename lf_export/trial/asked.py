"""What is asked: the functions and the message, as they are typed into the page."""

import json
from collections.abc import Sequence
from typing import Any

from lf_export.errors import InputError
from lf_export.functions.spec import FunctionSpec, from_llama_functions, from_openai

MOST_CHARACTERS = 200_000
"""Of the functions, and of the message: no model here reads more, and a page must stay alive."""


def read_functions(text: str) -> tuple[FunctionSpec, ...]:
    """The functions in a JSON text: OpenAI tools, bare functions, or the `llama_functions` list form; "" for none.

    Raises:
        InputError: not JSON, with line and column; or no functions, every mistake a line.
    """
    if len(text) > MOST_CHARACTERS:
        raise InputError(f"functions: {len(text):,} characters, expected at most {MOST_CHARACTERS:,}")
    if not text.strip():
        return ()
    try:
        value = json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise InputError(f"functions, line {error.lineno}, column {error.colno}: not JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"functions: not JSON: {error or 'nested too deeply'}") from error
    if isinstance(value, dict):
        value = value["functions"] if isinstance(value.get("functions"), list) else [value]
    return from_llama_functions(value) if _in_list_form(value) else from_openai(value, "functions")


def read_message(text: str) -> str:
    """The message without whitespace around it.

    Raises:
        InputError: it is empty or too long.
    """
    if len(text) > MOST_CHARACTERS:
        raise InputError(f"message: {len(text):,} characters, expected at most {MOST_CHARACTERS:,}")
    if not text.strip():
        raise InputError("the message is empty", "type a message, or choose an example")
    return text.strip()


def _in_list_form(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and any(isinstance(each, dict) and isinstance(each.get("parameters"), list) for each in value)
    )


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
