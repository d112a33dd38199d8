"""A model's answer: calls, prose, nothing, or an attempt at a call that does not read.

A malformed call is never prose: whoever counts abstentions must not reward a broken call.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from lf_export.errors import InputError

Kind = Literal["call", "prose", "malformed", "empty"]
Form = Literal["function_call", "hermes"]

_FENCE = re.compile(r"\A```[\w-]*[ \t]*\n?(.*?)\n?```\Z", re.DOTALL)
_HERMES = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")

# What an attempted call looks like, in our form and in those that models bring from elsewhere.
_ATTEMPT = re.compile(
    r"""
    ["']?function_?call["']?\s*[:=]          # "function_call": anywhere
    | \{\s*["']function                      # cut off early
    | ["']tool_calls["']\s*:
    | </?(?:tool_?call|function_?call)s?\b   # hermes tags, glaive's <functioncall>
    | <function=
    | \[TOOL_CALLS\] | <\|python_tag\|>
    | \{\s*["']name["']\s*:.*["'](?:arguments|parameters)["']\s*:
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
# name(key=value, …) as the whole answer, also in a list
_PYTHONIC = re.compile(r"\A\[?\s*[A-Za-z_][\w.]*\(\s*(?:\w+\s*=.*)?\)\s*\]?\Z", re.DOTALL)
_CALL_KEYS = frozenset({"function_call", "tool_calls", "function", "name", "arguments", "parameters"})


@dataclass(frozen=True)
class Call:
    """One call: the function's name and its arguments as JSON values."""

    name: str
    arguments: Mapping[str, Any] = field(hash=False)


@dataclass(frozen=True)
class Answer:
    """An answer: its kind, its calls, and its text without surrounding whitespace.

    A malformed answer keeps the calls that a code fence wrapped, for the lenient score; else it has none.
    """

    kind: Kind
    calls: tuple[Call, ...] = ()
    text: str = ""


def prose(text: str) -> Answer:
    """The answer that says `text`."""
    stripped = text.strip()
    return Answer("prose" if stripped else "empty", (), stripped)


def calling(*calls: Call) -> Answer:
    """The answer that makes these calls, with its text in the `function_call` form."""
    return Answer("call", calls, write_calls(calls))


def dumps(value: Any) -> str:
    """Compact JSON as the models are trained on it: no spaces, no ASCII escapes, keys in the order given.

    Raises:
        InputError: NaN, infinity, or a value that JSON has not.
    """
    try:
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"arguments that JSON cannot hold: {error}") from error
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def loads(text: str) -> Any:
    """A JSON value read strictly.

    Raises:
        ValueError: not JSON, a key twice in an object, NaN or infinity, a number out of range, nested too deeply.
    """
    try:
        return _DECODER.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def write_calls(calls: Sequence[Call]) -> str:
    """The calls in the `function_call` form, one a line."""
    return "\n".join(dumps({"function_call": {"name": call.name, "arguments": dict(call.arguments)}}) for call in calls)


def read_answer(text: str, form: Form = "function_call", ends: Sequence[str] = ()) -> Answer:
    """What the model's `text` is, when calls are expected in `form`.

    Whitespace around it and the end tokens `ends` do not count. A call is an answer that holds calls and
    nothing else. A call in a code fence, with text around it, in another form, cut off, with a key twice or
    with NaN is malformed.

    Law: `read_answer(write_calls(calls)) == calling(*calls)`.
    """
    text = _strip(text, ends)
    if not text:
        return Answer("empty")
    calls = _read_calls(text, form)
    if calls is not None:
        return Answer("call", calls, text)
    if fenced := _FENCE.match(text):
        inner = fenced[1].strip()
        calls = _read_calls(inner, form)
        if calls is not None:
            return Answer("malformed", calls, text)
    if _looks_like_a_call(text) or (fenced and _looks_like_a_call(inner)):
        return Answer("malformed", (), text)
    return Answer("prose", (), text)


def answer_of(message: Mapping[str, Any], where: str = "message") -> Answer:
    """The answer that an OpenAI assistant message holds.

    Raises:
        InputError: text beside calls, arguments that are not a JSON object, or a message of another form.
    """
    content = message.get("content")
    calls = message.get("tool_calls") or []
    if content is not None and not isinstance(content, str):
        raise InputError(f"{where}.content: expected text, found {type(content).__name__}")
    if not isinstance(calls, Sequence) or isinstance(calls, str):
        raise InputError(f"{where}.tool_calls: expected a list, found {type(calls).__name__}")
    if not calls:
        return prose(content or "")
    if content and content.strip():
        raise InputError(f"{where}: has both text and tool_calls, expected one of them")
    problems: list[str] = []
    read: list[Call] = []
    for position, call in enumerate(calls):
        try:
            read.append(_call_of(call, f"{where}.tool_calls[{position}]"))
        except InputError as error:
            problems.append(error.message)
    if problems:
        raise InputError.of(problems)
    return calling(*read)


def _call_of(call: Any, where: str) -> Call:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise InputError(f"{where}: expected an object with function.name")
    arguments = function.get("arguments", "{}")
    if isinstance(arguments, str):
        try:
            arguments = loads(arguments)
        except ValueError as error:
            raise InputError(f"{where}.function.arguments: not JSON: {error}") from error
    if not isinstance(arguments, Mapping):
        raise InputError(f"{where}.function.arguments: expected a JSON object, found {type(arguments).__name__}")
    return Call(function["name"], arguments)


def _strip(text: str, ends: Sequence[str]) -> str:
    text = text.strip()
    while end := next((end for end in ends if end and text.endswith(end)), ""):
        text = text[: -len(end)].rstrip()
    return text


def _read_calls(text: str, form: Form) -> tuple[Call, ...] | None:
    """The calls, when `text` is calls in `form` and nothing else."""
    values = _hermes_values(text) if form == "hermes" else _line_values(text)
    if not values:
        return None
    calls = [_as_call(value) for value in values]
    return None if None in calls else tuple(call for call in calls if call)


def _line_values(text: str) -> list[Any] | None:
    values = []
    position = 0
    while position < len(text):
        try:
            value, end = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError):
            return None
        if not isinstance(value, dict) or value.keys() != {"function_call"}:
            return None
        values.append(value["function_call"])
        rest = text[end:]
        gap = rest[: len(rest) - len(rest.lstrip())]
        position = end + len(gap)
        if position < len(text) and "\n" not in gap:  # one call a line
            return None
    return values


def _hermes_values(text: str) -> list[Any] | None:
    if _HERMES.sub("", text).strip():
        return None
    try:
        return [loads(found.strip()) for found in _HERMES.findall(text)]
    except ValueError:
        return None


def _as_call(value: Any) -> Call | None:
    if not isinstance(value, dict) or value.keys() != {"name", "arguments"}:
        return None
    name, arguments = value["name"], value["arguments"]
    if not isinstance(name, str) or not name or not isinstance(arguments, dict):
        return None
    return Call(name, arguments)


def _looks_like_a_call(text: str) -> bool:
    if _ATTEMPT.search(text) or _PYTHONIC.match(text):
        return True
    if not re.match(r"\{|\[\s*\{", text):
        return False
    try:
        value = loads(text)
    except ValueError:
        return True  # begins as JSON and is not: cut off, or text after it
    items = value if isinstance(value, list) else [value]
    return any(isinstance(item, dict) and not _CALL_KEYS.isdisjoint(item) for item in items)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if value in {float("inf"), float("-inf")}:
        raise ValueError(f"number out of range: {text}")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant)
