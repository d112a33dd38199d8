"""What a dialect is: a conversation as pieces of text, and a model's text as an answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from lf_export.functions.answers import Answer, Form, dumps
from lf_export.functions.spec import FunctionSpec, to_llama_functions

PieceRole = Literal["prompt", "functions", "prose", "call"]

# The origin's prompt, byte for byte; "respond with a the function name" is how the models were trained.
_BLOCK_HEAD = (
    "<<API>>\nYou may answer by calling one of the following functions. If you can infer a function's required "
    "arguments, respond with a the function name and arguments. If multiple functions can be called, pick the one "
    "that best answers the question.\n\n```\n"
)
_BLOCK_TAIL = "\n```\n<</API>>"


@dataclass(frozen=True)
class Piece:
    """A stretch of what the model sees.

    `functions` is the functions block, `call` and `prose` are the assistant's answers, each with the tokens that
    end it; all else is `prompt`.
    """

    text: str
    role: PieceRole


class Dialect(Protocol):
    """How a model was trained to see functions and to write calls."""

    @property
    def name(self) -> str:
        """The dialect's name in recipes."""

    @property
    def bos(self) -> str:
        """The token that goes before the text and is not part of it, or ""."""

    @property
    def form(self) -> Form:
        """How calls are written in an answer."""

    def render(
        self, messages: Sequence[Mapping[str, Any]], functions: Sequence[FunctionSpec], *, generate: bool = False
    ) -> list[Piece]:
        """The whole conversation; the pieces' texts, joined, are exactly what the model sees.

        With `generate` the last message is the user's or a tool's, and the text ends where the answer begins.

        Raises:
            InputError: a conversation that the dialect cannot show.
        """

    def parse(self, text: str) -> Answer:
        """What the model's text is; end tokens and whitespace around it do not count.

        Law: the parse of an answer's piece is the answer.
        """


def functions_block(functions: Sequence[FunctionSpec]) -> str:
    """The origin's `<<API>>` block, without a line break at its end."""
    listed = dumps({"functions": [to_llama_functions(spec) for spec in functions]})
    return _BLOCK_HEAD + listed + _BLOCK_TAIL


def text_of(pieces: Sequence[Piece]) -> str:
    """The pieces' texts, joined."""
    return "".join(piece.text for piece in pieces)


def split_at_functions(pieces: Sequence[Piece]) -> tuple[str, str]:
    """The text up to the end of the functions block, which items with the same functions share, and the rest.

    Without a block the first is empty. Tokens may straddle the cut: who shares a prefill takes the longest
    common prefix of the token ids of whole texts.
    """
    ends = [position for position, piece in enumerate(pieces) if piece.role == "functions"]
    cut = ends[-1] + 1 if ends else 0
    return text_of(pieces[:cut]), text_of(pieces[cut:])
