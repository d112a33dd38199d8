"""Two answers side by side: laid out alike, and marked where they differ."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

_TOKEN = re.compile(r"\s+|\w+|[^\w\s]")
_LONGEST = 6_000
# Beyond this many comparisons the whole answer counts as changed: nobody reads marks in such a text.
_MOST_COMPARISONS = 4_000_000


@dataclass(frozen=True)
class Piece:
    """A stretch of an answer; `changed` where the other answer has something else."""

    text: str
    changed: bool


def compared(first: str, second: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts in pieces. Law: the pieces' texts, joined, are the text."""
    left, right = _TOKEN.findall(first), _TOKEN.findall(second)
    if len(left) * len(right) > _MOST_COMPARISONS:
        changed = first != second
        return [Piece(first, changed)] if first else [], [Piece(second, changed)] if second else []
    pieces: tuple[list[Piece], list[Piece]] = ([], [])
    for kind, *spans in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        _add(pieces[0], left[spans[0] : spans[1]], changed=kind != "equal")
        _add(pieces[1], right[spans[2] : spans[3]], changed=kind != "equal")
    return pieces


def laid_out(text: str) -> str:
    """An answer that begins like JSON with a line for each member of an object; every other character stays.

    The text itself is broken into lines, not what it means: doubled keys, odd numbers and whatever is wrong
    with a malformed call stay to be seen.
    """
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} […]"
    if not text.lstrip().startswith("{"):
        return text
    parts: list[str] = []
    open_objects: list[bool] = []
    quoted = escaped = fresh = False
    for letter in text.strip():
        if quoted:
            parts.append(letter)
            quoted = escaped or letter != '"'
            escaped = letter == "\\" and not escaped
            continue
        if fresh and letter in " \t\r\n":
            continue
        fresh = False
        quoted = letter == '"'
        if letter in "{[":
            open_objects.append(letter == "{")
        elif letter in "}]" and open_objects:
            if open_objects.pop():
                parts.append(_line(open_objects))
        parts.append(letter)
        if (letter == "{") or (letter == "," and open_objects and open_objects[-1]):
            parts.append(_line(open_objects))
            fresh = True
        elif letter in ":,":
            parts.append(" ")
            fresh = True
    return "".join(parts)


def _line(open_objects: Sequence[bool]) -> str:
    return "\n" + "  " * sum(open_objects)


def _add(pieces: list[Piece], tokens: Sequence[str], *, changed: bool) -> None:
    if tokens:
        pieces.append(Piece("".join(tokens), changed))
