"""Two answers side by side: laid out alike, and marked where they differ."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby

_TOKEN = re.compile(r"\n\s*|[^\S\n]+|\w+|[^\w\s]")
_LONGEST = 6_000
# Beyond this many comparisons nothing is marked: nobody reads marks in such a text.
_MOST_COMPARISONS = 4_000_000
# Answers less alike than this, such as a call and a sentence, differ as a whole: marks would cover everything.
_LEAST_ALIKE = 0.35


@dataclass(frozen=True)
class Piece:
    """A stretch of an answer; `changed` where the other answer has something else."""

    text: str
    changed: bool


def compared(first: str, second: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts in pieces. Law: the pieces' texts, joined, are the text."""
    left, right = _TOKEN.findall(first), _TOKEN.findall(second)
    begin = _alike(left, right)
    end = _alike(left[begin:][::-1], right[begin:][::-1])
    inner = [side[begin : len(side) - end] for side in (left, right)]
    if len(inner[0]) * len(inner[1]) > _MOST_COMPARISONS:
        return _whole(first), _whole(second)
    matcher = SequenceMatcher(None, inner[0], inner[1], autojunk=False)
    matching = begin + end + sum(block.size for block in matcher.get_matching_blocks())
    if 2 * matching < _LEAST_ALIKE * (len(left) + len(right)):
        return _whole(first), _whole(second)
    pieces: tuple[list[Piece], list[Piece]] = ([], [])
    for side, found, start, stop in zip(pieces, (left, right), (1, 3), (2, 4), strict=True):
        _add(side, found[:begin], changed=False)
        for code in matcher.get_opcodes():
            span = slice(begin + int(code[start]), begin + int(code[stop]))
            _add(side, found[span], changed=code[0] != "equal")
        _add(side, found[len(found) - end :], changed=False)
    return pieces


def _alike(first: Sequence[str], second: Sequence[str]) -> int:
    """How many tokens both begin with."""
    return next(
        (at for at, (one, other) in enumerate(zip(first, second, strict=False)) if one != other),
        min(len(first), len(second)),
    )


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
        elif letter in "}]" and open_objects and open_objects.pop():
            if letter == "}" and parts[-1].startswith("\n") and parts[-2] == "{":
                parts.pop()  # an empty object stays on its line
            else:
                parts.append(_line(open_objects))
        parts.append(letter)
        if (letter == "{") or (letter == "," and open_objects and open_objects[-1]):
            parts.append(_line(open_objects))
            fresh = True
        elif letter in ":,":
            parts.append(" ")
            fresh = True
    return "".join(parts)


def _whole(text: str) -> list[Piece]:
    return [Piece(text, changed=False)] if text else []


def _line(open_objects: Sequence[bool]) -> str:
    return "\n" + "  " * sum(open_objects)


def _add(pieces: list[Piece], tokens: Sequence[str], *, changed: bool) -> None:
    """Add tokens as pieces; a line's end and indentation, which come from the layout, are never marked."""
    for broken, group in groupby(tokens, key=lambda token: token.startswith("\n")):
        pieces.append(Piece("".join(group), changed and not broken))
