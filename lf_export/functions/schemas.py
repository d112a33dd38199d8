"""What a well-formed call to some functions is, as a JSON Schema and as a GBNF grammar for llama.cpp."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lf_export.errors import InputError
from lf_export.functions.answers import Form, dumps
from lf_export.functions.spec import FunctionSpec, resolved

_VALUES = frozenset({"const", "enum", "default", "examples", "required"})  # keywords that hold values, not schemas

_COMMON = r"""
string ::= "\"" char* "\""
char ::= [^"\\\x00-\x1F] | "\\" (["\\/bfnrt] | "u" hex hex hex hex)
hex ::= [0-9a-fA-F]
integer ::= "-"? ("0" | [1-9] [0-9]*)
number ::= integer ("." [0-9]+)? ([eE] [-+]? [0-9]+)?
boolean ::= "true" | "false"
null ::= "null"
"""


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


def gbnf(functions: Sequence[FunctionSpec], form: Form = "function_call", *, padding: str = "") -> str:
    """The GBNF grammar of an answer that makes one call or several, one a line.

    The bytes are those that the models are trained on: compact JSON (with spaces after `,` and `:` for `hermes`),
    arguments in the schema's order, optional ones left out or given. `padding` goes before and after (" " for
    `llama-functions`).

    Raises:
        InputError: no functions.
    """
    if not functions:
        raise InputError("a grammar of calls needs at least one function")
    rules = _Rules(", ", ": ") if form == "hermes" else _Rules(",", ":")
    calls = []
    for position, spec in enumerate(functions):
        arguments = rules.object(f"f{position}", spec.parameters, spec.parameters, 0)
        name = rules.pair("name", _literal(dumps(spec.name)))
        rules.add(f"f{position}-call", rules.braces(f"{name} {rules.comma} {rules.pair('arguments', arguments)}"))
        calls.append(f"f{position}-call")
    any_call = " | ".join(calls)
    if form == "hermes":
        call = f'"<tool_call>\\n" ({any_call}) "\\n</tool_call>"'
    else:
        call = rules.braces(rules.pair("function_call", f"({any_call})"))
    edge = f"{_literal(padding)} " if padding else ""
    after = f" {_literal(padding)}" if padding else ""
    root = f'root ::= {edge}call ("\\n" call)*{after}\ncall ::= {call}\n'
    return root + rules.text() + _COMMON.lstrip()


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


class _Rules:
    """The rules of a grammar while it is written; `comma` and `colon` are JSON's, with the spaces that are trained."""

    def __init__(self, comma: str, colon: str) -> None:
        self.comma = _literal(comma)
        self._colon = colon
        self._rules: dict[str, str] = {}
        self._references: dict[tuple[int, str], str] = {}
        self.add("value", "string | number | boolean | null | any-object | any-array")
        self.add(
            "any-object",
            self.braces(f"(string {_literal(colon)} value ({self.comma} string {_literal(colon)} value)*)?"),
        )
        self.add("any-array", f'"[" (value ({self.comma} value)*)? "]"')

    def add(self, name: str, rule: str) -> str:
        self._rules[name] = rule
        return name

    def text(self) -> str:
        return "".join(f"{name} ::= {rule}\n" for name, rule in self._rules.items())

    def pair(self, key: str, rule: str) -> str:
        return f"{_literal(dumps(key) + self._colon)} {rule}"

    def braces(self, rule: str) -> str:
        return f'"{{" {rule} "}}"' if rule else '"{" "}"'

    def object(self, name: str, schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> str:
        """An object whose members come in the schema's order, the optional ones given or not."""
        properties = schema.get("properties") or {}
        if depth and not properties:
            return "any-object"
        required = set(schema.get("required") or ())
        members = [
            (self.pair(key, self.value(f"{name}-{position}", node, root, depth + 1)), key in required)
            for position, (key, node) in enumerate(properties.items())
        ]
        # rest-k is what may follow once a member has been written; before that there is no comma
        started = ""
        fresh: str = ""
        for position in reversed(range(len(members))):
            member, needed = members[position]
            tail = f"{name}-rest{position + 1}" if started else ""
            if started:
                self.add(tail, started)
            first = f"{member} {tail}".strip()
            following = f"{self.comma} {first}"
            if needed:
                started, fresh = following, first
            else:
                started = f"({following})?" if not started else f"{following} | {tail}"
                fresh = f"({first})?" if not fresh else f"{first} | {self.add(f'{name}-skip{position + 1}', fresh)}"
        return self.add(name, self.braces(f"({fresh})" if fresh else ""))

    def value(self, name: str, schema: Any, root: Mapping[str, Any], depth: int) -> str:
        if not isinstance(schema, Mapping):
            return "value"
        if "$ref" in schema:
            return self._referred(schema["$ref"], schema, root)
        choices = [schema["const"]] if "const" in schema else schema.get("enum")
        if isinstance(choices, list) and choices:
            return self.add(name, " | ".join(_literal(self._json(choice)) for choice in choices))
        branches = schema.get("anyOf") or schema.get("oneOf")
        if isinstance(branches, list) and branches:
            parts = [self.value(f"{name}-b{at}", branch, root, depth + 1) for at, branch in enumerate(branches)]
            return self.add(name, " | ".join(dict.fromkeys(parts)))
        kind = schema.get("type")
        kinds = kind if isinstance(kind, list) else [kind]
        parts = [self._typed(f"{name}-t{at}", one, schema, root, depth) for at, one in enumerate(kinds)]
        if schema.get("nullable") is True:
            parts.append("null")
        return parts[0] if len(parts) == 1 else self.add(name, " | ".join(parts))

    def _referred(self, reference: Any, schema: Mapping[str, Any], root: Mapping[str, Any]) -> str:
        """One rule for each target of references, so that a schema may refer to itself."""
        key = (id(root), str(reference))
        if key not in self._references:
            name = self._references[key] = f"ref{len(self._references)}"
            self.add(name, self.value(f"{name}-it", resolved(schema, root), root, 1))
        return self._references[key]

    def _typed(self, name: str, kind: Any, schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> str:
        if kind in {"string", "integer", "number", "boolean", "null"}:
            return str(kind)
        if kind == "object":
            return self.object(name, schema, root, depth)
        if kind == "array":
            item = self.value(f"{name}-item", schema.get("items"), root, depth + 1)
            filled = f"{item} ({self.comma} {item})*"
            at_least_one = isinstance(low := schema.get("minItems"), int) and low > 0
            return self.add(name, f'"[" {filled} "]"' if at_least_one else f'"[" ({filled})? "]"')
        return "value"

    def _json(self, value: Any) -> str:
        if self._colon == ":":
            return dumps(value)
        return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _literal(text: str) -> str:
    """A GBNF string literal."""
    escaped = (
        text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    )
    return f'"{escaped}"'
