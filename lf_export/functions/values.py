"""JSON values: when two are the same, and a number out of text."""

import unicodedata
from collections.abc import Mapping
from typing import Any


def json_equal(first: Any, second: Any) -> bool:
    """Equal as JSON: 1 equals 1.0, `true` does not equal 1, "1" does not equal 1, order of keys does not matter.

    Strings are compared after Unicode NFC and are otherwise exact.
    """
    if isinstance(first, bool) or isinstance(second, bool):
        return first is second
    if isinstance(first, int | float) and isinstance(second, int | float):
        return first == second
    if isinstance(first, str) and isinstance(second, str):
        return first == second or unicodedata.normalize("NFC", first) == unicodedata.normalize("NFC", second)
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(json_equal(value, second[key]) for key, value in first.items())
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(json_equal, first, second))
    return first is None and second is None


def number_or_text(text: str) -> int | float | str:
    """The number that Python reads in `text`, an integer before a float; the text itself where it reads none."""
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text
