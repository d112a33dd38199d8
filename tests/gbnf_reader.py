"""A small reader of GBNF grammars, written from llama.cpp's description of the format: does a text match?"""

import re
from collections.abc import Iterator
from typing import Any

_TOKEN = re.compile(
    r'\s*(?:("(?:[^"\\]|\\.)*")|(\[(?:[^\]\\]|\\.)*\])|([A-Za-z][A-Za-z0-9-]*)|([()|*+?])|(\{\d*,?\d*\}))', re.DOTALL
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}


class Grammar:
    """The rules of a grammar; `matches` says whether the whole text is one of its."""

    def __init__(self, text: str) -> None:
        self.rules: dict[str, Any] = {}
        for found in re.finditer(r"^([A-Za-z][A-Za-z0-9-]*) ::= (.*)$", text, re.MULTILINE):
            assert found[1] not in self.rules, f"two rules named {found[1]}"
            tokens = self._tokens(found[2])
            self.rules[found[1]] = self._choice(tokens)
            assert not tokens, f"left over in {found[1]}: {tokens}"
        assert len(self.rules) == sum(1 for line in text.split("\n") if line.strip())

    def matches(self, text: str) -> bool:
        """Whether the whole text is derived from `root`."""
        return any(end == len(text) for end in self._match(("rule", "root"), text, 0))

    def _tokens(self, body: str) -> list[str]:
        tokens, position = [], 0
        while body[position:].strip():
            found = _TOKEN.match(body, position)
            assert found, f"not a word: {body[position:]!r}"
            tokens.append(found[0].strip())
            position = found.end()
        return tokens

    def _choice(self, tokens: list[str]) -> Any:
        branches = [self._sequence(tokens)]
        while tokens and tokens[0] == "|":
            tokens.pop(0)
            branches.append(self._sequence(tokens))
        return ("choice", branches)

    def _sequence(self, tokens: list[str]) -> Any:
        items: list[Any] = []
        while tokens and tokens[0] not in {"|", ")"}:
            word = tokens.pop(0)
            if word == "(":
                items.append(self._choice(tokens))
                assert tokens.pop(0) == ")"
            elif word in {"*", "+", "?"}:
                items[-1] = ("repeat", items[-1], 1 if word == "+" else 0, 1 if word == "?" else 10**9)
            elif word.startswith("{"):
                low = int(word.strip("{}"))
                items[-1] = ("repeat", items[-1], low, low)
            elif word.startswith('"'):
                items.append(("text", re.sub(r"\\(.)", lambda found: _ESCAPES[found[1]], word[1:-1])))
            elif word.startswith("["):
                items.append(("class", re.compile(word)))
            else:
                items.append(("rule", word))
        assert items, "an empty sequence"
        return ("sequence", items)

    def _match(self, node: Any, text: str, at: int) -> Iterator[int]:
        kind = node[0]
        if kind == "text":
            if text.startswith(node[1], at):
                yield at + len(node[1])
        elif kind == "class":
            if at < len(text) and node[1].match(text, at):
                yield at + 1
        elif kind == "rule":
            yield from self._match(self.rules[node[1]], text, at)
        elif kind == "choice":
            seen: set[int] = set()
            for branch in node[1]:
                for end in self._match(branch, text, at):
                    if end not in seen:
                        seen.add(end)
                        yield end
        elif kind == "sequence":
            yield from self._match_all(node[1], text, at)
        else:
            yield from self._match_many(node, text, at)

    def _match_all(self, items: list[Any], text: str, at: int) -> Iterator[int]:
        ends = {at}
        for item in items:
            ends = {end for start in ends for end in self._match(item, text, start)}
        yield from ends

    def _match_many(self, node: Any, text: str, at: int) -> Iterator[int]:
        _, item, low, high = node
        frontier, seen, count = {at}, set[int](), 0
        while frontier:
            if count >= low:
                yield from frontier - seen
            seen |= frontier
            if count == high:
                return
            frontier = {end for start in frontier for end in self._match(item, text, start)} - seen
            count += 1
