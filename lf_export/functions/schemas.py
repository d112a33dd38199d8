"""What a well-formed call to some functions is, as a JSON Schema.

`json_schema` keeps all that the functions' own schemas say. `plain_schema` says what a grammar can hold a model to
while it writes: names, which arguments are there, their types and allowed values; not lengths, ranges and patterns.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lf_export.errors import InputError
from lf_export.functions.answers import Form, dumps
from lf_export.functions.spec import FunctionSpec, resolved

_VALUES = frozenset({"const", "enum", "default", "examples", "required"})  # keywords that hold values, not schemas


def json_schema(functions: Sequence[FunctionSpec], form: Form = "function_call") -> dict[str, Any]:
    """The JSON Schema of one call: `{"function_call": {…}}`, or for `hermes` the object within the tags.

    Raises:
        InputError: no functions.
    """
    if not functions:
        raise InputError("a schema of calls needs at least one function")
    calls = [
        _closed({"name": {"const": spec.name}, "arguments": _arguments(spec, position)})
        for position, spec in enumerate(functions)
    ]
    return {"anyOf": [call if form == "hermes" else _closed({"function_call": call}) for call in calls]}


def plain_schema(functions: Sequence[FunctionSpec], form: Form = "function_call") -> dict[str, Any]:
    """The union of {name, its own arguments} in few keywords: what every engine of grammars understands alike.

    A value is `{}` (anything), `{"$ref": "#/$defs/…"}`, `{"enum": […]}`, `{"anyOf": […]}`, or has one `type`: that of
    a scalar, `array` with `items` and at most `minItems: 1`, `object` alone (any) or closed, with `properties`.
    Objects that name their properties are closed, whatever they say of others.

    Raises:
        InputError: no functions.
    """
    if not functions:
        raise InputError("a grammar of calls needs at least one function")
    plain = _Plain()
    calls = []
    for spec in functions:
        arguments = plain.closed(spec.parameters, spec.parameters)
        call = _closed({"name": {"enum": [spec.name]}, "arguments": arguments})
        calls.append(call if form == "hermes" else _closed({"function_call": call}))
    return {"anyOf": calls, "$defs": plain.defs}


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    """An object with these properties, all of them, and no other."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _arguments(spec: FunctionSpec, position: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": {}, **_without_extras(spec.parameters)}
    schema.setdefault("additionalProperties", False)
    # an identifier of its own keeps references such as #/$defs/address inside the function's schema
    return {"$id": f"urn:function:{position}", **schema} if '"$ref"' in dumps(schema) else schema


def _without_extras(node: Any) -> Any:
    """The schema with every object that names its properties closed, as `validate` judges it."""
    if isinstance(node, list):
        return [_without_extras(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    closed = {key: value if key in _VALUES else _without_extras(value) for key, value in node.items()}
    if isinstance(properties := node.get("properties"), Mapping):
        closed["properties"] = {name: _without_extras(child) for name, child in properties.items()}
        if properties and "type" in node:
            closed.setdefault("additionalProperties", False)
    return closed


class _Plain:
    """Schemas in few keywords; `defs` are the targets of references, so that a schema may hold itself."""

    def __init__(self) -> None:
        self.defs: dict[str, Any] = {}
        self._names: dict[tuple[int, str], str] = {}

    def closed(self, schema: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
        """An object with the properties that `schema` names and no other."""
        properties = schema.get("properties") or {}
        required = schema.get("required") or ()
        return {
            "type": "object",
            "properties": {name: self._value(child, root) for name, child in properties.items()},
            "required": [name for name in properties if name in required],
            "additionalProperties": False,
        }

    def _value(self, schema: Any, root: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(schema, Mapping):
            return {}
        if "$ref" in schema:
            return self._referred(schema, root)
        choices = [schema["const"]] if "const" in schema else schema.get("enum")
        if isinstance(choices, list) and choices:
            return {"enum": choices}
        branches = schema.get("anyOf") or schema.get("oneOf")
        if isinstance(branches, list) and branches:
            return _either([self._value(branch, root) for branch in branches])
        kind = schema.get("type")
        values = [self._typed(each, schema, root) for each in (kind if isinstance(kind, list) else [kind])]
        return _either([*values, *([{"type": "null"}] if schema.get("nullable") is True else [])])

    def _typed(self, kind: Any, schema: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
        if kind in {"string", "integer", "number", "boolean", "null"}:
            return {"type": kind}
        if kind == "object":
            return self.closed(schema, root) if schema.get("properties") else {"type": "object"}
        if kind == "array":
            filled = isinstance(low := schema.get("minItems"), int) and low > 0
            return {"type": "array", "items": self._value(schema.get("items"), root)} | (
                {"minItems": 1} if filled else {}
            )
        return {}

    def _referred(self, schema: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
        key = (id(root), str(schema["$ref"]))
        if key not in self._names:
            name = self._names[key] = f"ref{len(self._names)}"
            self.defs[name] = self._value(resolved(schema, root), root)
        return {"$ref": f"#/$defs/{self._names[key]}"}


def _either(values: list[dict[str, Any]]) -> dict[str, Any]:
    return values[0] if len(values) == 1 else {"anyOf": values}
