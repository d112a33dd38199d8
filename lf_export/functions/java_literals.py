"""Java source text of an argument as a value, the way that BFCL's checker reads it.

The leaderboard shows every parameter of a Java function as a string that holds source text, and reads it by the
parameter's Java type before it compares. What does not read stays text. To agree with it on every answer these rules
are the checker's own, odd ones included: strings inside `new String[]{…}` keep their quotes, inside an `ArrayList`
they lose them.

Source: the type conversion of `bfcl-eval` (Apache-2.0), read and written anew.
"""

import re
from collections.abc import Sequence
from typing import Any

from lf_export.functions.answers import dumps
from lf_export.functions.values import number_or_text

_WHOLE = re.compile(r"-?\d+\n?")
_LONG = re.compile(r"(-?\d+)[lL]\n?")
_DECIMAL = r"(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)"
_FLOAT = re.compile(_DECIMAL + r"[fF]\n?")
_DOUBLE = re.compile(_DECIMAL + r"\n?")
_ARRAY = re.compile(r"new\s+\w+\[\]\s*\{(.*?)\}")
_LIST_OF = re.compile(r"new\s+ArrayList<\w*>\(Arrays\.asList\((.+?)\)\)")
_LIST_FILLED = re.compile(r"new\s+ArrayList<\w*>\(\)\s*\{\{\s*(.+?)\s*\}\}", re.DOTALL)
_LIST_EMPTY = re.compile(r"new\s+ArrayList<\w*>\(\)")
_ADD = re.compile(r"add\((.+?)\)")
_MAP_FILLED = re.compile(r"new\s+HashMap<.*?>\s*\(\)\s*\{\s*\{?\s*(.*?)\s*\}?\s*\}", re.DOTALL)
_MAP_EMPTY = re.compile(r"new\s+HashMap<.*?>\s*\(\)")
_PUT = re.compile(r'put\("(.*?)",\s*(.*?)\)')

KINDS: dict[str, type] = {
    "byte": int,
    "short": int,
    "integer": int,
    "long": int,
    "float": float,
    "double": float,
    "boolean": bool,
    "char": str,
    "String": str,
    "any": str,
    "Array": list,
    "ArrayList": list,
    "Queue": list,
    "Stack": list,
    "Set": set,
    "HashMap": dict,
    "Hashtable": dict,
}
"""The Python type that a value of a Java type has once it is read."""

LISTS = frozenset({"Array", "ArrayList"})
"""Types whose elements have a type of their own."""


def read_java(text: str, kind: str, items: str | None = None) -> Any:
    """The value of `text` for a parameter of Java type `kind` with elements of type `items`.

    Raises:
        ValueError: a type that has no literals.
    """
    if kind in {"String", "any", "char"}:
        return text
    if kind in {"byte", "short", "integer"}:
        return int(text) if _WHOLE.fullmatch(text) else text
    if kind == "long":
        return int(found[1]) if (found := _LONG.fullmatch(text)) else text
    if kind in {"float", "double"}:
        found = (_FLOAT if kind == "float" else _DOUBLE).fullmatch(text)
        return float(found[1]) if found else text
    if kind == "boolean":
        return text == "true" if text in {"true", "false"} else text
    if kind == "Array":
        return _read_array(text, items)
    if kind == "ArrayList":
        return _read_list(text, items)
    if kind == "HashMap":
        return _read_map(text)
    raise ValueError(f"no literals of type {kind}")


def untyped_java(text: str) -> Any:
    """The value of a literal whose type is not known."""
    if text in {"true", "false"}:
        return text == "true"
    if text.startswith('"') and text.endswith('"'):
        return text[1:-1]
    if found := _LONG.fullmatch(text):
        return int(found[1])
    if found := _FLOAT.fullmatch(text):
        return float(found[1])
    return number_or_text(text)


def write_java(value: Any, kind: str, items: str | None = None) -> str:
    """Source text of a value; where the rules allow it, `read_java` of the text gives the value back."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        suffix = {"long": "L", "float": "f"}.get(kind, "")
        return f"{value}{suffix}"
    if isinstance(value, list):
        elements = ", ".join(_write_element(each, kind, items) for each in value)
        name = {"integer": "Integer", "long": "Long", "any": "Object"}.get(items or "any", str(items))
        if kind == "Array":
            primitive = {"integer": "int", "any": "Object"}.get(items or "any", str(items))
            return f"new {primitive}[]{{{elements}}}"
        return f"new ArrayList<{name}>(Arrays.asList({elements}))" if value else f"new ArrayList<{name}>()"
    puts = " ".join(f'put("{key}", {_write_element(each, "HashMap", None)});' for key, each in value.items())
    return f"new HashMap<String, Object>() {{{{ {puts} }}}}" if value else "new HashMap<String, Object>()"


def _write_element(value: Any, kind: str, items: str | None) -> str:
    if isinstance(value, str):
        quoted = kind == "HashMap" or (kind == "ArrayList" and items == "String")
        return dumps(value) if quoted else value
    return write_java(value, items or "any")


def _read_array(text: str, items: str | None) -> Any:
    found = _ARRAY.search(text)
    if found is None:
        return text
    parts = [part.strip() for part in found[1].split(",")]
    return [read_java(part, items) if items else untyped_java(part) for part in parts if part]


def _read_list(text: str, items: str | None) -> Any:
    if found := _LIST_OF.search(text):
        return _elements(found[1].split(","), items)
    if found := _LIST_FILLED.search(text):
        return _elements(_ADD.findall(found[1]), items)
    return [] if _LIST_EMPTY.search(text) else text


def _elements(parts: Sequence[str], items: str | None) -> list[Any]:
    stripped = [part.strip() for part in parts]
    if items in {"char", "String"}:  # whatever stands first and last is taken for the quotes
        return [part[1:-1] for part in stripped]
    return [read_java(part, items) if items else untyped_java(part) for part in stripped]


def _read_map(text: str) -> Any:
    if found := _MAP_FILLED.search(text):
        return {key: untyped_java(value.strip()) for key, value in _PUT.findall(found[1])}
    return {} if _MAP_EMPTY.search(text) else text
