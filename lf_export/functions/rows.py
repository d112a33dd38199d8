"""Rows of the `llama_functions` dataset (`input`, `output`) back into messages and functions.

Law: `LlamaFunctions().render(*read_row(input, output))` joined is `input + output + "</s>"`, for rows in the
published bytes.
"""

import json
import re
from typing import Any

from lf_export.errors import InputError
from lf_export.functions.answers import Answer, dumps, loads, read_answer
from lf_export.functions.spec import FunctionSpec, from_llama_functions

_SYSTEM = re.compile(r"\A<<SYS>>\n(.*?)\n<</SYS>>\n\n(.*)\Z", re.DOTALL)
_BLOCK = re.compile(r"\A<<API>>\n.*?```\n(\{.*?\})\n```\n<</API>>(?:\n\n(.*))?\Z", re.DOTALL)
_NEXT_TURN = re.compile(r"\s*</s>\s*<s>\s*\[INST\]\s")

Message = dict[str, Any]


def read_row(prompt: str, output: str) -> tuple[list[Message], tuple[FunctionSpec, ...]]:
    """The OpenAI messages and the functions of a row.

    Raises:
        InputError: another frame than Llama 2's, a block that does not read, an empty or malformed answer.
    """
    text = prompt.strip().removeprefix("<s>").lstrip()
    if not text.startswith("[INST]") or not text.endswith("[/INST]"):
        raise InputError("input: expected '[INST] … [/INST]'")
    # the separator of later turns opens their [INST]; the first one's goes here
    turns = _NEXT_TURN.split(text.removeprefix("[INST]").removeprefix(" ").removesuffix("[/INST]").removesuffix(" "))
    messages: list[Message] = []
    functions: tuple[FunctionSpec, ...] = ()
    for position, turn in enumerate(turns):
        request, found, answer = turn.rpartition(" [/INST] ")
        if position + 1 == len(turns):
            request, answer = turn, output
        elif not found:
            raise InputError(f"input: turn {position + 1} has no answer after [/INST]")
        if position == 0 and (section := _SYSTEM.match(request)):
            functions, system = _read_system(section[1])
            request = section[2]
            if system:
                messages.append({"role": "system", "content": system})
        messages += [{"role": "user", "content": request}, _assistant(answer)]
    return messages, functions


def _read_system(text: str) -> tuple[tuple[FunctionSpec, ...], str]:
    block = _BLOCK.match(text)
    if block is None:
        if "<<API>>" in text:
            raise InputError('input: the <<API>> block does not read, expected {"functions":[…]} in a code fence')
        return (), text
    try:
        value = loads(block[1])
    except ValueError as error:
        raise InputError(f"input: the functions in the <<API>> block are not JSON: {error}") from error
    if not isinstance(value, dict) or "functions" not in value:
        raise InputError("input: the <<API>> block has no 'functions'")
    return from_llama_functions(value["functions"], "input: functions"), block[2] or ""


def _assistant(text: str) -> Message:
    answer: Answer = read_answer(text, ends=("</s>",))
    if answer.kind == "call":
        calls = [
            {
                "id": f"call_{position}",
                "type": "function",
                "function": {"name": call.name, "arguments": dumps(dict(call.arguments))},
            }
            for position, call in enumerate(answer.calls)
        ]
        return {"role": "assistant", "content": None, "tool_calls": calls}
    if answer.kind == "prose":
        return {"role": "assistant", "content": answer.text}
    shown = json.dumps(text[:60], ensure_ascii=False)
    raise InputError(f"output: the answer is {answer.kind}, expected a call or prose: {shown}")
