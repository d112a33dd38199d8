"""The dialect `llama-functions`: the bytes on which the origin's Llama-2 chat models were trained.

Source: the dataset `marclove/llama_functions`, Llama 2's `[INST]` frame around an `<<API>>` block.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lf_export.errors import InputError
from lf_export.functions.answers import Answer, Form, read_answer, write_calls
from lf_export.functions.pieces import Piece, functions_block
from lf_export.functions.spec import FunctionSpec
from lf_export.functions.turns import Turn, read_turns, responses_as_user

_BOS = "<s>"
_EOS = "</s>"


@dataclass(frozen=True)
class LlamaFunctions:
    r"""`[INST] <<SYS>>…<</SYS>>\n\nuser [/INST] answer </s>`, turns after the first behind `<s>`."""

    name: ClassVar[str] = "llama-functions"
    bos: ClassVar[str] = _BOS
    form: ClassVar[Form] = "function_call"
    needed_tokens: ClassVar[tuple[str, ...]] = (_BOS, _EOS)

    def render(
        self, messages: Sequence[Mapping[str, Any]], functions: Sequence[FunctionSpec], *, generate: bool = False
    ) -> list[Piece]:
        """The conversation in the origin's bytes; see `Dialect.render`.

        The functions block, then the system message's text, share the `<<SYS>>` section; without both there is none.

        Raises:
            InputError: turns that do not alternate between user and assistant.
        """
        turns = responses_as_user(read_turns(messages))
        system = turns.pop(0).text if turns[0].role == "system" else ""
        _check_turns(turns, generate=generate)
        pieces = [Piece("[INST] ", "prompt")]
        if functions or system:
            pieces.append(Piece("<<SYS>>\n", "prompt"))
            if functions:
                pieces.append(Piece(functions_block(functions), "functions"))
            between = "\n\n" if functions and system else ""
            pieces.append(Piece(f"{between}{system}\n<</SYS>>\n\n", "prompt"))
        for position, turn in enumerate(turns):
            if turn.answer is None:
                opening = f"{_BOS}[INST] " if position else ""
                pieces.append(Piece(f"{opening}{turn.text} [/INST]", "prompt"))
            else:
                pieces.append(_answer_piece(turn.answer))
        return pieces

    def parse(self, text: str) -> Answer:
        """What the model's text is; see `Dialect.parse`."""
        return read_answer(text, self.form, (_EOS,))


def _answer_piece(answer: Answer) -> Piece:
    if answer.kind == "call":
        return Piece(f" {write_calls(answer.calls)} {_EOS}", "call")
    return Piece(f" {answer.text} {_EOS}", "prose")


def _check_turns(turns: Sequence[Turn], *, generate: bool) -> None:
    for position, turn in enumerate(turns):
        expected = "assistant" if position % 2 else "user"
        if turn.role != expected:
            raise InputError(f"turn {position + 1} is the {turn.role}'s, expected the {expected}'s: [INST] alternates")
    if not turns:
        raise InputError("a conversation of a system message alone, expected a user message")
    if generate and turns[-1].role == "assistant":
        raise InputError("the conversation ends with an answer, expected the user's turn to generate after")
