"""Is a call one that its function would take: a check of arguments against the part of JSON Schema that tools use.

Checked: `type` (also a list, `nullable`), `enum`, `const`, `properties`, `required`, `additionalProperties`, `items`,
bounds on numbers and lengths, `anyOf`, `oneOf`, `allOf`, `$ref` inside the same schema. Other keywords are not.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lf_export.functions.answers import Call
from lf_export.functions.bounds import MAX_DEPTH, MAX_STEPS
from lf_export.functions.spec import FunctionSpec, resolved
from lf_export.functions.values import json_equal

ErrorKind = Literal[
    "unknown_function",
    "wrong_function",
    "missing_argument",
    "extra_argument",
    "wrong_type",
    "wrong_value",
    "enum",
    "nested",
    "count",
    "order",
    "not_a_call",
    "unwanted_call",
    "malformed",
    "truncated",
    "loop",
]
"""What can be wrong with an answer; the last two come beside others."""

# Names of types beside JSON Schema's own, as the `llama_functions` rows and BFCL write them.
_ALIASES = {
    "float": "number",
    "double": "number",
    "int": "integer",
    "str": "string",
    "bool": "boolean",
    "dict": "object",
    "list": "array",
    "tuple": "array",
}


@dataclass(frozen=True)
class CallError:
    """What is wrong with a call: its kind, the argument, and a sentence.

    `path` names the place, such as `address.zip` or `tags[2]`. Below the top level `kind` is `nested`; `cause` is what
    is wrong there.
    """

    kind: ErrorKind
    path: str
    message: str
    cause: ErrorKind | None = None

    @property
    def argument(self) -> str:
        """The top-level argument that holds the place."""
        return self.path.partition(".")[0].partition("[")[0]


def validate(call: Call, functions: Sequence[FunctionSpec]) -> list[CallError]:
    """Every mistake in the call; none when one of `functions` would take it.

    An argument that the schema does not name is a mistake unless `additionalProperties` allows it in so many words:
    a model that makes up arguments is broken, whatever JSON Schema's default says.
    """
    spec = next((spec for spec in functions if spec.name == call.name), None)
    if spec is None:
        return [CallError("unknown_function", "", f"no function is named {call.name!r}")]
    try:
        return _Check(spec.parameters).members("", call.arguments, spec.parameters, closed=True)
    except _TooLongError:
        return [CallError("wrong_value", "", f"the schema of {call.name!r} takes more than {MAX_STEPS} steps to check")]


class _TooLongError(Exception):
    """References made a schema grow past any bound."""


class _Check:
    """One walk over a value and its schema."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._steps = 0

    def members(
        self, path: str, value: Mapping[str, Any], schema: Mapping[str, Any], *, closed: bool, depth: int = 0
    ) -> list[CallError]:
        named = schema.get("properties")
        properties: Mapping[str, Any] = named if isinstance(named, Mapping) else {}
        others = schema.get("additionalProperties", not closed and not properties)
        errors = [
            _error("missing_argument", joined(path, name), "is required and not given")
            for name in _listed(schema.get("required"))
            if isinstance(name, str) and name not in value
        ]
        for name, member in value.items():
            at = joined(path, name)
            if name in properties:
                errors += self._value(at, member, properties[name], depth + 1)
            elif others is False:
                errors.append(_error("extra_argument", at, "is not one of the function's"))
            elif isinstance(others, Mapping):
                errors += self._value(at, member, others, depth + 1)
        return errors

    def _value(self, path: str, value: Any, schema: Any, depth: int) -> list[CallError]:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise _TooLongError
        if depth > MAX_DEPTH:
            return [_error("wrong_value", path, "is nested too deeply")]
        schema = resolved(schema, self._root)
        if not isinstance(schema, Mapping):
            return [_error("extra_argument", path, "is not allowed")] if schema is False else []
        if value is None and schema.get("nullable") is True:
            return []
        types = types_of(schema)
        if types and not any(_TYPES.get(name, _anything)(value) for name in types):
            return [_error("wrong_type", path, f"is {_type_of(value)}, expected {' or '.join(types)}")]
        choices = [schema["const"]] if "const" in schema else schema.get("enum")
        if isinstance(choices, list) and not any(json_equal(value, choice) for choice in choices):
            return [_error("enum", path, f"is {value!r}, expected one of {choices!r}")]
        errors = _bounds(path, value, schema)
        errors += self._combined(path, value, schema, depth)
        if isinstance(value, Mapping):
            errors += self.members(path, value, schema, closed=False, depth=depth)
        if isinstance(value, list) and "items" in schema:
            for position, item in enumerate(value):
                errors += self._value(f"{path}[{position}]", item, schema["items"], depth + 1)
        return errors

    def _combined(self, path: str, value: Any, schema: Mapping[str, Any], depth: int) -> list[CallError]:
        errors = [error for part in _listed(schema.get("allOf")) for error in self._value(path, value, part, depth + 1)]
        for keyword in ("anyOf", "oneOf"):
            branches = [self._value(path, value, part, depth + 1) for part in _listed(schema.get(keyword))]
            if branches and all(branches):
                nearest = min(branches, key=len)
                errors += nearest
        return errors


def types_of(schema: Mapping[str, Any]) -> list[str]:
    """The types that a schema names, by JSON Schema's own names."""
    kind = schema.get("type")
    names = kind if isinstance(kind, list) else [kind]
    return [_ALIASES.get(name, name) for name in names if isinstance(name, str)]


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _bounds(path: str, value: Any, schema: Mapping[str, Any]) -> list[CallError]:
    errors = []
    if isinstance(value, int | float) and not isinstance(value, bool):
        for keyword, broken, words in _NUMBER_BOUNDS:
            limit = schema.get(keyword)
            if isinstance(limit, int | float) and not isinstance(limit, bool) and broken(value, limit):
                errors.append(_error("wrong_value", path, f"is {value}, expected {words} {limit}"))
    if isinstance(value, str | list):
        unit = "Length" if isinstance(value, str) else "Items"
        low, high = schema.get(f"min{unit}"), schema.get(f"max{unit}")
        if (isinstance(low, int) and len(value) < low) or (isinstance(high, int) and len(value) > high):
            errors.append(_error("wrong_value", path, f"has length {len(value)}, expected {low or 0} to {high}"))
    return errors


def _error(kind: ErrorKind, path: str, message: str) -> CallError:
    below = "." in path or "[" in path
    return CallError("nested" if below else kind, path, f"{path} {message}", kind)


def joined(path: str, name: str) -> str:
    """The path of a member."""
    # a dot or a bracket in a name would read as a step down
    name = name.replace(".", "·").replace("[", "(")
    return f"{path}.{name}" if path else name


def _type_of(value: Any) -> str:
    return next((name for name, is_type in _TYPES.items() if is_type(value)), type(value).__name__)


def _anything(value: Any) -> bool:  # noqa: ARG001
    """A type that we do not know refuses nothing."""
    return True


_TYPES: dict[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    # JSON has one kind of number: 3.0 is an integer
    "integer": lambda value: (
        not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))
    ),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, Mapping),
}

_NUMBER_BOUNDS: tuple[tuple[str, Callable[[float, float], bool], str], ...] = (
    ("minimum", lambda value, limit: value < limit, "at least"),
    ("maximum", lambda value, limit: value > limit, "at most"),
    ("exclusiveMinimum", lambda value, limit: value <= limit, "more than"),
    ("exclusiveMaximum", lambda value, limit: value >= limit, "less than"),
)
