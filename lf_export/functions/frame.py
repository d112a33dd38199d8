"""What a dialect writes around the turns of a conversation, found by rendering with markers in their places.

For runtimes that do not run Jinja: from a frame another template can be written, such as one of Ollama's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lf_export.errors import InputError
from lf_export.functions.pieces import Dialect, text_of

_SYSTEM, _ASKED, _SAID, _AGAIN = "lfxSYSTEMxfl", "lfxASKEDxfl", "lfxSAIDxfl", "lfxAGAINxfl"


@dataclass(frozen=True)
class Frame:
    """The texts around turns of the user and the model that alternate.

    Law: for turns without whitespace at their ends, `text(system, turns)` is the dialect's own text with `generate`.

    Attributes:
        system: before and after a system message; what follows it opens the user's turn too.
        alone: before the user's first turn where there is no system message.
        asks: after a user's turn: the prompt ends with it.
        answer: before an answer that was given, after `asks`.
        again: after an answer, before the user's next turn.
    """

    system: tuple[str, str]
    alone: str
    asks: str
    answer: str
    again: str

    def text(self, system: str, turns: Sequence[str]) -> str:
        """A conversation of the user's and the model's turns in alternation, the last one the user's."""
        head = f"{self.system[0]}{system}{self.system[1]}" if system else self.alone
        return head + "".join(
            f"{self.answer}{turn}{self.again}" if place % 2 else f"{turn}{self.asks}"
            for place, turn in enumerate(turns)
        )


def frame_of(dialect: Dialect) -> Frame:
    """The frame of a dialect.

    Raises:
        InputError: the dialect writes something else than fixed texts around turns, or refuses a system message.
    """
    alone, asks = _around(_rendered(dialect, "", [_ASKED]), _ASKED)
    before, after = _around(_rendered(dialect, _SYSTEM, [_ASKED]), _SYSTEM)
    opening, _ = _around(after, _ASKED)
    given, rest = _around(_rendered(dialect, "", [_ASKED, _SAID, _AGAIN]), _SAID)
    answer = given.removeprefix(f"{alone}{_ASKED}{asks}")
    again, _ = _around(rest, _AGAIN)
    frame = Frame((before, opening), alone, asks, answer, again)
    for system, turns in (
        ("", ["a"]),
        ("", ["a b", "c", "d"]),
        ("s", ["a", "b", "c"]),
        ("s, t.", ["a?", "b", "c", "d\ne", "f"]),
    ):
        if frame.text(system, turns) != _rendered(dialect, system, turns):
            raise InputError(f"the dialect {dialect.name} writes more than fixed texts around turns")
    return frame


def _rendered(dialect: Dialect, system: str, turns: Sequence[str]) -> str:
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    messages += [{"role": ("user", "assistant")[place % 2], "content": turn} for place, turn in enumerate(turns)]
    return dialect.bos + text_of(dialect.render(messages, (), generate=True))


def _around(text: str, marker: str) -> tuple[str, str]:
    before, found, after = text.partition(marker)
    if not found or marker in after:
        raise InputError("the dialect does not write each turn once, as it is")
    return before, after
