"""Would the Berkeley Function-Calling Leaderboard count these calls as right: its rules, written anew.

The rules are those of the AST checker of `bfcl-eval` 2026.3.23 (Apache-2.0) for its single-turn categories. They are
kept as they are, odd ones included, so that a score is the leaderboard's on the same answers:

- strings are compared without case, without spaces and without `,./-_*^`, and `'` counts as `"`: "1.5" equals "15";
- a call takes the first expected one, in the order of these, that it satisfies: greed, no best pairing;
- the type that a function's description gives is compared with the type of the value, one level into lists; a value
  of the type of the expected ones is accepted too, as the name of a variable;
- Python's equality, in which `true` equals 1, decides the rest.

`benchmarks/bfcl.py` compares this with the checker itself.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lf_export.functions import java_literals, javascript_literals
from lf_export.functions.answers import Answer, Call
from lf_export.functions.possible import OMITTED, PossibleCall, read_literal

_IGNORED = str.maketrans(dict.fromkeys(" ,./-_*^") | {"'": '"'})
_PYTHON_KINDS: dict[str, type] = {
    "string": str,
    "any": str,
    "integer": int,
    "float": float,
    "boolean": bool,
    "array": list,
    "tuple": list,
    "dict": dict,
    # the leaderboard has no such names; other suites have
    "number": float,
    "object": dict,
}
_KINDS = {"python": _PYTHON_KINDS, "java": java_literals.KINDS, "javascript": javascript_literals.KINDS}
_LISTS = {
    "python": frozenset({"array", "tuple"}),
    "java": java_literals.LISTS,
    "javascript": javascript_literals.LISTS,
}
_FLOATS = frozenset({"float", "number"})


def bfcl_right(calls: Sequence[Call], expected: Sequence[PossibleCall]) -> bool:
    """Whether the leaderboard's checker would accept the calls, in any order."""
    if len(calls) != len(expected):
        return False
    rest = list(calls)
    for wanted in expected:
        at = next((at for at, call in enumerate(rest) if bfcl_call(call, wanted)), None)
        if at is None:
            return False
        del rest[at]
    return True


def bfcl_abstained(answer: Answer) -> bool:
    """Whether the leaderboard takes the answer for an abstention: all that reads as no call, garbage included."""
    return not answer.calls


def bfcl_call(call: Call, wanted: PossibleCall) -> bool:
    """Whether one call satisfies one expected call."""
    given = call.arguments
    if call.name != wanted.name or any(name not in given for name in wanted.required):
        return False
    try:
        if not all(_argument(wanted, name, value) for name, value in given.items()):
            return False
    except (ValueError, TypeError, AttributeError, OverflowError):  # the checker itself ends with a traceback here
        return False
    return all(name in given or OMITTED in allowed for name, allowed in wanted.arguments.items())


def _argument(wanted: PossibleCall, name: str, value: Any) -> bool:
    if name not in wanted.properties or name not in wanted.arguments:
        return False
    allowed = wanted.arguments[name]
    kind_name, item_name = wanted.kind_of(name)
    kinds = _KINDS[wanted.language]
    kind = kinds.get(kind_name, str)
    items = None
    if kind_name in _LISTS[wanted.language] and item_name is not None:
        items = kinds.get(item_name, str)
    if wanted.language != "python":
        if not isinstance(value, str):
            return False
        value = read_literal(value, kind_name, item_name if items else None, wanted.language)
    elif kind_name in _FLOATS and type(value) is int:
        value = float(value)
    elif kind_name == "tuple" and isinstance(value, tuple):
        value = list(value)
    typed, variable = _typed(value, kind, items, allowed)
    if not typed:
        return False
    if variable:
        return value in allowed
    if kind is dict:
        return _table(value, allowed)
    if kind is list:
        return _tables(value, allowed) if items is dict else _list(value, allowed)
    if kind is str:
        return _plain(value) in [_plain(each) for each in allowed if isinstance(each, str)]
    return value in allowed


def _typed(value: Any, kind: Any, items: Any, allowed: Sequence[Any]) -> tuple[bool, bool]:
    """Whether the value has an acceptable type, and whether it counts as a variable's name.

    A list has it when its elements have, for any one of the allowed lists; an allowed value that is no list asks
    nothing of them.
    """
    allowed_kind = next((type(each) for each in allowed if each != OMITTED), None)
    if type(value) is not kind:
        fits = allowed_kind is not None and type(value) is allowed_kind
        return fits, fits
    variable = allowed_kind is not None and allowed_kind is not kind
    if items is None:
        return True, variable
    elements: Sequence[Any] = value
    fits = any(
        not isinstance(each, list) or all(_typed(item, items, None, each)[0] for item in elements) for each in allowed
    )
    return fits, variable


def _plain(value: Any) -> Any:
    """A string as it is compared, anything else as it is."""
    return value.translate(_IGNORED).lower() if isinstance(value, str) else value


def _list(value: Iterable[Any], allowed: Iterable[Any]) -> bool:
    return list(map(_plain, value)) in [list(map(_plain, each)) for each in allowed]


def _table(value: Mapping[str, Any], allowed: Sequence[Any]) -> bool:
    """Whether an object is one of the tables: no key too many, none missing that cannot be left out, values allowed."""
    for table in allowed:
        if table == OMITTED:
            continue
        inside = all(key in table and _plain(each) in list(map(_plain, table[key])) for key, each in value.items())
        if inside and all(key in value or OMITTED in listed for key, listed in table.items()):
            return True
    return False


def _tables(value: Sequence[Any], allowed: Sequence[Any]) -> bool:
    return any(
        len(value) == len(tables) and all(_table(one, [table]) for one, table in zip(value, tables, strict=True))
        for tables in allowed
    )
