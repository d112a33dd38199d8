"""The grammar of an answer that calls functions, for llama.cpp (GBNF) and for llguidance (Lark with a JSON Schema).

Both come from one plain schema, so both take the same answers: one call or several, one a line, as JSON with at most a
space after `,` and `:`, arguments in the order of the schema, optional ones left out or given. Both engines enforce
that order for schemas of their own too.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lf_export.functions.answers import Form, dumps
from lf_export.functions.schemas import plain_schema
from lf_export.functions.spec import FunctionSpec

TAGS = ("<tool_call>", "</tool_call>")
"""What stands around a call in the form `hermes`."""

# Whitespace around an answer; models write a space or a line break there, more would let one write nothing else.
_EDGE = "[ \\t\\n]"
_SCALARS = frozenset({"string", "integer", "number", "boolean", "null"})
_COMMON = rf"""
edge ::= ({_EDGE} {_EDGE}?)?
comma ::= "," " "?
colon ::= ":" " "?
value ::= string | number | boolean | null | any-object | any-array
any-object ::= "{{" (string colon value (comma string colon value)*)? "}}"
any-array ::= "[" (value (comma value)*)? "]"
string ::= "\"" char* "\""
char ::= [^"\\\x00-\x1F] | "\\" (["\\/bfnrt] | "u" hex hex hex hex)
hex ::= [0-9a-fA-F]
integer ::= "-"? ("0" | [1-9] [0-9]*)
number ::= integer ("." [0-9]+)? ([eE] [-+]? [0-9]+)?
boolean ::= "true" | "false"
null ::= "null"
"""


@dataclass(frozen=True)
class CallGrammar:
    """What an answer that calls is held to.

    Attributes:
        opening: what such an answer begins with, after whitespace; an answer without it is no attempt at a call.
        gbnf: the grammar for llama.cpp.
        lark: the grammar for llguidance.
    """

    opening: str
    gbnf: str
    lark: str

    def opened(self, text: str) -> bool:
        """Whether an answer, or its beginning, attempts a call."""
        return text.lstrip().startswith(self.opening)

    def may_open(self, text: str) -> bool:
        """Whether an answer that begins so may still come to attempt a call."""
        return self.opening.startswith(text.lstrip())


def call_grammar(functions: Sequence[FunctionSpec], form: Form = "function_call") -> CallGrammar:
    r"""The grammar of calls to `functions`.

    The two forms take the same texts but for one: a DEL character in a string is taken raw by the GBNF and only as
    `\u007f` by llguidance.

    Raises:
        InputError: no functions.
    """
    schema = plain_schema(functions, form)
    return CallGrammar(TAGS[0] if form == "hermes" else "{", _gbnf(schema, form), _lark(schema, form))


def _lark(schema: Mapping[str, Any], form: Form) -> str:
    """The schema as it is within a frame; separators are regular expressions, and no other whitespace is taken."""
    options = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}
    value = f"%json {json.dumps(dict(schema) | {'x-guidance': options}, ensure_ascii=False)}"
    opening, closing = (json.dumps(tag) for tag in TAGS)
    call = f"{opening} EDGE value EDGE {closing}\nvalue: {value}" if form == "hermes" else value
    return f'start: EDGE call ("\\n" call)* EDGE\nEDGE: /{_EDGE}{{0,2}}/\ncall: {call}\n'


def _gbnf(schema: Mapping[str, Any], form: Form) -> str:
    rules = _Rules()
    calls = [rules.value(f"f{place}", call) for place, call in enumerate(schema["anyOf"])]
    any_call = " | ".join(calls)
    if form == "hermes":
        opening, closing = map(_literal, TAGS)
        any_call = f"{opening} edge ({any_call}) edge {closing}"
    for name, value in schema["$defs"].items():
        rules.add(name, rules.value(f"{name}-it", value))
    return f'root ::= edge call ("\\n" call)* edge\ncall ::= {any_call}\n{rules.text()}{_COMMON.lstrip()}'


class _Rules:
    """The rules of a grammar while it is written."""

    def __init__(self) -> None:
        self._rules: dict[str, str] = {}

    def add(self, name: str, rule: str) -> str:
        self._rules[name] = rule
        return name

    def text(self) -> str:
        return "".join(f"{name} ::= {rule}\n" for name, rule in self._rules.items())

    def value(self, name: str, schema: Mapping[str, Any]) -> str:
        """What matches a value of a plain schema; rules that it needs have names that begin with `name`."""
        if reference := schema.get("$ref"):
            return str(reference).rpartition("/")[2]
        if choices := schema.get("enum"):
            return self.add(name, " | ".join(_literal(dumps(choice)) for choice in choices))
        if branches := schema.get("anyOf"):
            parts = [self.value(f"{name}-b{at}", branch) for at, branch in enumerate(branches)]
            return self.add(name, " | ".join(dict.fromkeys(parts)))
        kind = schema.get("type")
        if kind == "object":
            return self._object(name, schema) if "properties" in schema else "any-object"
        if kind == "array":
            item = self.value(f"{name}-item", schema["items"])
            filled = f"{item} (comma {item})*"
            return self.add(name, f'"[" {filled} "]"' if "minItems" in schema else f'"[" ({filled})? "]"')
        return str(kind) if kind in _SCALARS else "value"

    def _object(self, name: str, schema: Mapping[str, Any]) -> str:
        """An object whose members come in the schema's order, the optional ones given or not."""
        members = [
            (f"{_literal(dumps(key))} colon {self.value(f'{name}-{place}', child)}", key in schema["required"])
            for place, (key, child) in enumerate(schema["properties"].items())
        ]
        # rest-k is what may follow once a member has been written; before that there is no comma
        started = fresh = ""
        for place in reversed(range(len(members))):
            member, needed = members[place]
            tail = self.add(f"{name}-rest{place + 1}", started) if started else ""
            first = f"{member} {tail}".strip()
            following = f"comma {first}"
            if needed:
                started, fresh = following, first
            else:
                started = f"{following} | {tail}" if started else f"({following})?"
                fresh = f"{first} | {self.add(f'{name}-skip{place + 1}', fresh)}" if fresh else f"({first})?"
        return self.add(name, f'"{{" ({fresh}) "}}"' if fresh else '"{" "}"')


def _literal(text: str) -> str:
    """A GBNF string literal."""
    escaped = (
        text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    )
    return f'"{escaped}"'
