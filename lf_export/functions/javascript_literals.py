"""JavaScript source text of an argument as a value, the way that BFCL's checker reads it.

As for Java (`java_literals`): the leaderboard shows every parameter as a string of source text and reads it by its
declared type. What does not read stays text.

Source: the type conversion of `bfcl-eval` (Apache-2.0), read and written anew; its pattern for lists of lists, which
takes exponential time on an answer that opens many and closes none, is a scan from the right here.
"""

import json
import re
from typing import Any

from lf_export.functions.values import number_or_text

_WHOLE = re.compile(r"-?\d+\n?")
_DECIMAL = re.compile(r"-?\d+(?:\.\d+)?\n?")
_BIG = re.compile(r"(-?\d+)n")
_LIST = re.compile(r"\[(.*?)\]|new\s+Array\((.*?)\)")
_NESTED_OPEN = re.compile(r"\[\s*\[|new\s+Array\(\s*\[")
_NEXT_OPEN = re.compile(r",\s*\[")
_INNER = re.compile(r"\[(.*?)\]")
_OBJECT = re.compile(r"\{(.*?)\}")
# a member ends at a comma with another `key:` after it, or at the end
_MEMBER = re.compile(r"(?P<key>[^:]+):\s*(?P<value>.*?)(?:,\s*(?=[^,]+:)|$)")

KINDS: dict[str, type] = {
    "String": str,
    "any": str,
    "integer": int,
    "Bigint": int,
    "float": float,
    "Boolean": bool,
    "dict": dict,
    "array": list,
}
"""The Python type that a value of a JavaScript type has once it is read."""

LISTS = frozenset({"array"})
"""Types whose elements have a type of their own."""


def read_javascript(text: str, kind: str, items: str | None = None) -> Any:
    """The value of `text` for a parameter of type `kind` with elements of type `items`.

    Raises:
        ValueError: a type that has no literals.
    """
    if kind == "any":
        return text
    if kind == "String":
        return text[1:-1] if _quoted(text) else text
    if kind == "integer":
        return int(text) if _WHOLE.fullmatch(text) else text
    if kind == "float":
        return float(text) if _DECIMAL.fullmatch(text) else text
    if kind == "Bigint":
        return int(found[1]) if (found := _BIG.fullmatch(text)) else text
    if kind == "Boolean":
        return text == "true" if text in {"true", "false"} else text
    if kind == "array":
        return _read_list(text.strip(), items)
    if kind == "dict":
        return _read_object(text.strip())
    raise ValueError(f"no literals of type {kind}")


def untyped_javascript(text: str) -> Any:
    """The value of a literal whose type is not known."""
    text = text.strip()
    if text in {"true", "false"}:
        return text == "true"
    if _quoted(text):
        return text[1:-1]
    return number_or_text(text)


def write_javascript(value: Any, kind: str) -> str:
    """Source text of a value; where the rules allow it, `read_javascript` of the text gives the value back."""
    if isinstance(value, str):
        return value
    if kind == "Bigint" and isinstance(value, int):
        return f"{value}n"
    return json.dumps(value, ensure_ascii=False)


def _quoted(text: str) -> bool:
    return any(text.startswith(mark) and text.endswith(mark) for mark in "\"'")


def _read_list(text: str, items: str | None) -> Any:
    if (end := _nested_end(text)) is not None:
        return _rows(text[:end])
    found = _LIST.match(text)
    if found is None:
        return text
    inside = (found[1] if found[1] is not None else found[2]).strip()
    parts = [part.strip() for part in inside.split(",")] if inside else []
    if not items:
        return [untyped_javascript(part) for part in parts]
    try:
        return [read_javascript(part, items) for part in parts]
    except ValueError:
        return text


def _rows(text: str) -> list[list[Any]]:
    rows = [inner.strip() for inner in _INNER.findall(text)]
    if rows:
        rows[0] = rows[0].removeprefix("[")
    return [[untyped_javascript(part) for part in row.split(",")] for row in rows]


def _nested_end(text: str) -> int | None:
    """Where a list of lists that begins `text` ends, or None where none does.

    Rows are separated by commas; a row goes from its `[` to a `]` on the same line, the nearest from which the rest
    reads, with more rows before fewer. From right to left, each `]` needs to be looked at once for each row.
    """
    opened = _NESTED_OPEN.match(text)
    if opened is None:
        return None
    closer = "]" if text[0] == "[" else ")"
    ends: dict[int, int | None] = {}  # the end of the whole, by the place of the `]` that ends a row
    for at in range(len(text) - 1, -1, -1):
        if text[at] != "]":
            continue
        rest = at + 1
        while rest < len(text) and text[rest].isspace():
            rest += 1
        more = _NEXT_OPEN.match(text, rest)
        end = _first_end(text, more.end(), ends) if more else None
        if end is None and text[rest : rest + 1] == closer:
            end = rest + 1
        ends[at] = end
    return _first_end(text, opened.end(), ends)


def _first_end(text: str, start: int, ends: dict[int, int | None]) -> int | None:
    line_end = text.find("\n", start)
    at = text.find("]", start, None if line_end < 0 else line_end)
    while at >= 0:
        if (end := ends[at]) is not None:
            return end
        at = text.find("]", at + 1, None if line_end < 0 else line_end)
    return None


def _read_object(text: str) -> Any:
    if text == "{}":
        return {}
    found = _OBJECT.match(text)
    if found is None:
        return text
    members: dict[str, Any] = {}
    for member in _MEMBER.finditer(found[1]):
        key, value = member["key"].strip().strip("'\""), member["value"].strip()
        if value.startswith("[") and value.endswith("]"):
            members[key] = _read_list(value, None)
        else:
            members[key] = untyped_javascript(value.strip("'\""))
    return members
