"""Expected calls that several values would satisfy: for each argument the values that are right.

The form is that of the Berkeley Function-Calling Leaderboard (BFCL): `{"unit": ["celsius", ""]}` allows `celsius`, and
`""` says that the argument may be left out. A value of an object is itself such a table, and so are the objects of a
list. Functions in Java and JavaScript take every argument as source text, which is read before it is compared.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from lf_export.functions import java_literals, javascript_literals
from lf_export.functions.answers import Call
from lf_export.functions.spec import FunctionSpec
from lf_export.functions.values import json_equal

Language = Literal["python", "java", "javascript"]

OMITTED = ""
"""Among the allowed values: the argument may be left out."""

_TABLES = frozenset({"dict", "object", "HashMap", "Hashtable"})
_LISTS = frozenset({"array", "tuple", "list", "Array", "ArrayList"})


class Wanted(Protocol):
    """An expected call: which arguments it needs, which it knows, and what is right for each."""

    @property
    def name(self) -> str:
        """The function's name."""

    @property
    def needed(self) -> frozenset[str]:
        """Arguments that cannot be left out."""

    @property
    def known(self) -> frozenset[str]:
        """Arguments that may be given."""

    def allows(self, name: str, value: Any) -> bool:
        """Whether the value is strictly right for the argument."""

    def example(self, name: str) -> Any:
        """A value that is right for a known argument."""


@dataclass(frozen=True)
class ExactCall:
    """A call that is expected as it is."""

    call: Call

    @property
    def name(self) -> str:
        """The function's name."""
        return self.call.name

    @property
    def needed(self) -> frozenset[str]:
        """All its arguments."""
        return frozenset(self.call.arguments)

    known = needed

    def allows(self, name: str, value: Any) -> bool:
        """Whether the value is the call's own, as JSON."""
        return name in self.call.arguments and json_equal(value, self.call.arguments[name])

    def example(self, name: str) -> Any:
        """The call's own value."""
        return self.call.arguments[name]


@dataclass(frozen=True)
class PossibleCall:
    """A call as an item allows it.

    Attributes:
        name: the function's name.
        arguments: for each argument the values that are right, `""` among them where it may be left out.
        properties: the function's parameters with the types of the item's own language.
        required: names of the parameters that a call must give.
        language: how arguments are written.
    """

    name: str
    arguments: Mapping[str, Sequence[Any]] = field(hash=False)
    properties: Mapping[str, Mapping[str, Any]] = field(hash=False)
    required: tuple[str, ...] = ()
    language: Language = "python"

    @property
    def needed(self) -> frozenset[str]:
        """Arguments that cannot be left out, because no answer allows it or because the function requires them."""
        return frozenset(
            name for name, allowed in self.arguments.items() if OMITTED not in allowed or name in self.required
        )

    @property
    def known(self) -> frozenset[str]:
        """Arguments that may be given."""
        return frozenset(self.arguments)

    def kind_of(self, name: str) -> tuple[str, str | None]:
        """The type of a parameter and, where it is a list, of its elements; `any` where it is not said."""
        schema = self.properties.get(name) or {}
        return _type_of(schema), _type_of(schema["items"]) if isinstance(schema.get("items"), Mapping) else None

    def reference(self) -> Call:
        """The call with the first value of each argument that is needed or required, in order."""
        chosen = [name for name in self.arguments if name in self.needed]
        return Call(self.name, {name: self.example(name) for name in chosen})

    def example(self, name: str) -> Any:
        """The first value that is right for the argument, as source text where it is that; `""` where there is none."""
        value = next((value for value in self.arguments[name] if value != OMITTED), OMITTED)
        kind, items = self.kind_of(name)
        return self._written(_first(value, kind, items), kind, items)

    def allows(self, name: str, value: Any) -> bool:
        """Whether `value` is strictly right for the argument: equal to an allowed value as JSON.

        Source text is read by the parameter's type first. Text inside a list or map that is a literal counts as its
        value: the reader leaves some of these as they are.
        """
        kind, items = self.kind_of(name)
        equal: Callable[[Any, Any], bool] = json_equal
        if self.language != "python":
            if not isinstance(value, str):
                return False
            try:
                value = read_literal(value, kind, items, self.language)
            except ValueError:
                return False
            untyped = _UNTYPED[self.language]

            def equal(read: Any, allowed: Any) -> bool:
                return json_equal(read, allowed) or (isinstance(read, str) and json_equal(untyped(read), allowed))

        allowed = [each for each in self.arguments.get(name, ()) if each != OMITTED]
        return any(_matches(value, each, kind, items, equal) for each in allowed)

    def _written(self, value: Any, kind: str, items: str | None) -> Any:
        if self.language == "java":
            return java_literals.write_java(value, kind, items)
        if self.language == "javascript":
            return javascript_literals.write_javascript(value, kind)
        return value


def read_literal(text: str, kind: str, items: str | None, language: Language) -> Any:
    """The value of source text in a language.

    Raises:
        ValueError: a type that has no literals.
    """
    read = java_literals.read_java if language == "java" else javascript_literals.read_javascript
    return read(text, kind, items)


def possible_of(call: Call, functions: Sequence[FunctionSpec]) -> PossibleCall:
    """One expected call in this form: each argument has one value; one that equals the default may be left out.

    An argument that the call leaves out may be given as its default.
    """
    spec = next((spec for spec in functions if spec.name == call.name), None)
    schema = spec.parameters if spec else {}
    properties = {
        name: node if isinstance(node, Mapping) else {} for name, node in (schema.get("properties") or {}).items()
    }
    required = tuple(name for name in schema.get("required") or () if isinstance(name, str))
    allowed: dict[str, list[Any]] = {}
    for name in [*call.arguments, *(name for name in properties if name not in call.arguments)]:
        node = properties.get(name, {})
        optional = name not in required and "default" in node
        if name in call.arguments:
            value = call.arguments[name]
            allowed[name] = [
                _table(value, node),
                *([OMITTED] if optional and json_equal(value, node["default"]) else []),
            ]
        elif optional:
            allowed[name] = [_table(node["default"], node), OMITTED]
    return PossibleCall(call.name, allowed, properties, required)


def _table(value: Any, schema: Mapping[str, Any]) -> Any:
    """A value as the only one that is allowed: objects of a type that says so become tables of one value each."""
    if isinstance(value, Mapping) and _type_of(schema) in _TABLES:
        return {key: [each] for key, each in value.items()}
    items = schema.get("items")
    if isinstance(value, list) and _type_of(schema) in _LISTS and isinstance(items, Mapping):
        return [_table(each, items) if isinstance(each, Mapping) else each for each in value]
    return value


def _first(value: Any, kind: str, items: str | None) -> Any:
    """The first value that a table allows."""
    if kind in _TABLES and isinstance(value, Mapping):
        return {
            key: next((each for each in _listed(allowed) if each != OMITTED), OMITTED)
            for key, allowed in value.items()
            if OMITTED not in _listed(allowed)
        }
    if kind in _LISTS and items in _TABLES and isinstance(value, list):
        return [_first(each, items, None) for each in value]
    return value


def _matches(value: Any, allowed: Any, kind: str, items: str | None, equal: Callable[[Any, Any], bool]) -> bool:
    if kind in _TABLES and isinstance(allowed, Mapping):
        return _in_table(value, allowed, equal)
    if isinstance(allowed, list) and isinstance(value, list):
        if len(value) != len(allowed):
            return False
        if kind in _LISTS and items in _TABLES:
            return all(_matches(one, other, items, None, equal) for one, other in zip(value, allowed, strict=True))
        return all(map(equal, value, allowed))
    return json_equal(value, allowed)


def _in_table(value: Any, table: Mapping[str, Any], equal: Callable[[Any, Any], bool]) -> bool:
    if not isinstance(value, Mapping) or value.keys() - table.keys():
        return False
    for key, listed in table.items():
        allowed = _listed(listed)
        if key not in value:
            if OMITTED not in allowed:
                return False
        elif not any(
            equal(value[key], each) or (isinstance(each, list) and _matches(value[key], each, "array", None, equal))
            for each in allowed
        ):
            return False
    return True


def _listed(allowed: Any) -> Sequence[Any]:
    """Some tables of the leaderboard hold the one value itself instead of a list of it."""
    return allowed if isinstance(allowed, list) else [allowed]


def _type_of(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type")
    return kind if isinstance(kind, str) else "any"


_UNTYPED: Mapping[str, Callable[[str], Any]] = {
    "java": java_literals.untyped_java,
    "javascript": javascript_literals.untyped_javascript,
}
