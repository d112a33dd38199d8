"""As much of Go's text/template as a Modelfile of ours uses: actions, if, range, eq, variables, trimming, strings."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

_ACTION = re.compile(r"\{\{(- )?\s*(.*?)\s*( -)?\}\}", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


def rendered(template: str, messages: Sequence[Mapping[str, str]]) -> str:
    """The template over `.Messages`; what it does not know is an error, never text."""
    nodes = _tokens(template)
    tree, rest = _block(nodes, 0, ())
    assert rest == len(nodes)
    out: list[str] = []
    _run(tree, {"Messages": list(messages)}, {}, out)
    return "".join(out)


def _tokens(template: str) -> list[tuple[str, str]]:
    found, at, trim = [], 0, False
    for action in _ACTION.finditer(template):
        text = template[at : action.start()]
        text = text.lstrip() if trim else text
        found.append(("text", text.rstrip() if action[1] else text))
        found.append(("do", action[2]))
        at, trim = action.end(), bool(action[3])
    found.append(("text", template[at:].lstrip() if trim else template[at:]))
    return found


def _block(nodes: list[tuple[str, str]], at: int, until: tuple[str, ...]) -> tuple[list[Any], int]:
    tree: list[Any] = []
    while at < len(nodes):
        kind, text = nodes[at]
        word = text.split(" ")[0] if kind == "do" else ""
        if word in until:
            return tree, at
        at += 1
        if word == "range":
            inner, at = _block(nodes, at, ("end",))
            tree.append(("range", text.removeprefix("range "), inner))
            at += 1
        elif word == "if":
            branches = []
            condition: str | None = text.removeprefix("if ")
            while True:
                inner, at = _block(nodes, at, ("else", "end"))
                branches.append((condition, inner))
                ended = nodes[at][1]
                at += 1
                if ended == "end":
                    break
                condition = ended.removeprefix("else if ") if ended != "else" else None
            tree.append(("if", branches))
        else:
            tree.append((kind, text))
    assert not until, f"no {until}"
    return tree, at


def _run(tree: list[Any], dot: Mapping[str, Any], variables: dict[str, Any], out: list[str]) -> None:
    for node in tree:
        if node[0] == "text":
            out.append(node[1])
        elif node[0] == "range":
            for item in _value(node[1], dot, variables):
                _run(node[2], {"Role": item["role"], "Content": item["content"]}, variables, out)
        elif node[0] == "if":
            for condition, inner in node[1]:
                if condition is None or _value(condition, dot, variables):
                    _run(inner, dot, variables, out)
                    break
        elif found := re.fullmatch(r"(\$\w+) (:=|=) (.+)", node[1]):
            assert (found[2] == ":=") == (found[1] not in variables)
            variables[found[1]] = _value(found[3], dot, variables)
        else:
            value = _value(node[1], dot, variables)
            assert isinstance(value, str)
            out.append(value)


def _value(text: str, dot: Mapping[str, Any], variables: Mapping[str, Any]) -> Any:
    if _STRING.fullmatch(text):
        return json.loads(text)
    if text.isdigit():
        return int(text)
    if text.startswith("$"):
        return variables[text]
    if text.startswith("."):
        return dot[text[1:]]
    word, one, other = re.findall(r'"(?:[^"\\]|\\.)*"|\S+', text)
    assert word == "eq"
    return _value(one, dot, variables) == _value(other, dot, variables)
