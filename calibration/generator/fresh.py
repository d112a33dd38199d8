"""Values that training never repeats: a small model must copy them from the request, for it cannot remember them."""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from generator.seeds import Function

_SHARE = 0.6  # of the values
_DATE = re.compile(r"(\d{4})-\d{2}-\d{2}")
_TIME = re.compile(r"\d{2}:\d{2}(?!:)")
# What can be another in a text that was written whole: dates, times, words with a digit, names inside a sentence.
_LITERAL = re.compile(
    r"\d{4}-\d{2}-\d{2}|\d{2}:\d{2}|(?<![\w@.])[\w-]*\d[\w-]*(?![\w@.]\w)|(?<=[a-z,] )(?!I\b)[A-Z][\w-]+"
)
# Words that make a value what it is ("the", the end of an address, the kind of a file) stay.
_PART = re.compile(r"(?<![.\w])[A-Za-z]+|(?<=_)[A-Za-z]+|\d+")
_KEPT = {"the", "of", "and", "in", "on", "at", "for", "to", "a", "an", "my", "is", "https", "http", "www", "example"}
_ONSETS = (*"bcdfghjklmnprstvwz", "br", "ch", "cr", "dr", "fl", "gr", "kl", "pr", "sh", "st", "th", "tr")
_NUCLEI = (*"aeiouy", "ai", "ea", "ee", "io", "ou")
_CODAS = ["", "", "", "l", "m", "n", "r", "s", "t", "ck", "nd", "rn", "st", "x"]
_LONG = 4  # words; of longer texts only some are changed, so that they read as texts


class FreshPools(dict):  # type: ignore[type-arg]
    """Pools whose values are renewed as they are drawn: words by other words, digits by other digits.

    Args:
        pools: the values as they were written.
        words: real words in lower case, to draw from beside invented ones.
    """

    def __init__(self, pools: Mapping[str, list[Any]], words: Sequence[str]) -> None:
        super().__init__(pools)
        self.words = words

    def renew(self, value: str, rng: random.Random) -> str:
        """`value`, or as often one of the same form that was never seen."""
        return value if rng.random() >= _SHARE else _renewed(value, self.words, rng)


def renew_literals(texts: Sequence[str], words: Sequence[str], rng: random.Random) -> list[str]:
    """Texts that were written whole, with their dates, times, codes, numbers and names renewed, the same in all.

    A name is a capitalised word that does not begin a sentence. Half of the time everything stays.
    """
    if rng.random() >= _SHARE:
        return list(texts)
    found = sorted({match[0] for text in texts for match in _LITERAL.finditer(text)}, key=len, reverse=True)
    renewed = {literal: _renewed(literal, words, rng) for literal in found}
    if not renewed:
        return list(texts)
    any_of = re.compile("|".join(rf"(?<!\w){re.escape(literal)}(?!\w)" for literal in found))
    return [any_of.sub(lambda match: renewed[match[0]], text) for text in texts]


def renew_enums(function: Function, words: Sequence[str], rng: random.Random) -> Function:
    """`function` with other words in the enumerations that are said as they are written."""
    return replace(function, parameters=_other_enums(function.parameters, words, rng))


def _other_enums(parameters: dict[str, Any], words: Sequence[str], rng: random.Random) -> dict[str, Any]:
    result = {}
    for key, parameter in parameters.items():
        changed = dict(parameter)
        if parameter["type"] == "object":
            changed["properties"] = _other_enums(parameter["properties"], words, rng)
        elif parameter["type"] == "array":
            changed["items"] = _other_enums({"items": parameter["items"]}, words, rng)["items"]
        elif "say" not in parameter and all(isinstance(value, str) for value in parameter.get("enum", [0])):
            values = [_renewed(value, words, rng) for value in parameter["enum"]]
            if len({value.lower() for value in values}) == len(values):
                changed["enum"] = values
        result[key] = changed
    return result


def _renewed(value: str, words: Sequence[str], rng: random.Random) -> str:
    if _DATE.match(value) or _TIME.fullmatch(value):
        dated = _DATE.sub(lambda match: _date(int(match[1]), rng), value)
        return _TIME.sub(lambda _: f"{rng.randrange(24):02}:{rng.randrange(60):02}", dated)
    share = 0.4 if len(value.split()) > _LONG else 1.0
    return _PART.sub(lambda match: match[0] if rng.random() >= share else _part(match[0], words, rng), value)


def _date(year: int, rng: random.Random) -> str:
    return f"{year + rng.randint(-2, 2)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"


def _part(part: str, words: Sequence[str], rng: random.Random) -> str:
    if part.lower() in _KEPT:
        return part
    if part.isdigit():
        first = "0" if part[0] == "0" else rng.choice("123456789")
        return first + "".join(rng.choice("0123456789") for _ in part[1:])
    if part.isupper() and len(part) > 1:
        return "".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in part)
    word = rng.choice(words) if words and rng.random() < 0.6 else _invented(rng)
    return word.capitalize() if part[0].isupper() else word


def _invented(rng: random.Random) -> str:
    return "".join(
        rng.choice(_ONSETS) + rng.choice(_NUCLEI) + rng.choice(_CODAS) for _ in range(rng.choice([1, 2, 2, 3]))
    )
