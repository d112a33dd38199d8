"""Conversations as token ids, each token with its class: what calibration weighs and the benchmark looks at."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from lf_export.errors import InputError
from lf_export.functions.dialects import Piece


class TokenClass(IntEnum):
    """Where a token stands; from `NAME` on it is inside a function call."""

    PROMPT = 0
    FUNCTIONS = 1
    PROSE = 2
    NAME = 3
    KEY = 4
    VALUE = 5
    PUNCT = 6


# A token that straddles classes takes the most specific one: it is the token that must be right for that name, key or
# value to be right. Between equals the one with more characters, then the first.
_RANK = np.array([0, 1, 2, 3, 3, 3, 2], dtype=np.int64)

_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+', re.DOTALL)


@dataclass(frozen=True)
class TokenizedSample:
    """A conversation's token ids [t] and their classes [t]."""

    name: str
    ids: npt.NDArray[np.int32]
    classes: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """How many tokens each class has, by the class's number."""
        return np.bincount(self.classes, minlength=len(TokenClass)).astype(np.int64)

    @property
    def call_tokens(self) -> int:
        """How many tokens are inside function calls."""
        return int((self.classes >= TokenClass.NAME).sum())


def encode(pieces: Sequence[Piece], tokenizer: Any, *, bos: str = "", name: str = "") -> TokenizedSample:
    """Tokenize a conversation once, as a whole, and say what each token is.

    The ids are the tokenizer's own for the whole text; `bos` (a dialect's) goes before them as one token. An answer's
    end token belongs to the answer: it is punctuation after a call, prose after prose.

    Raises:
        InputError: a tokenizer without offsets, or one that lacks `bos`.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise InputError("the tokenizer gives no offsets, expected one with a tokenizer.json")
    text = "".join(piece.text for piece in pieces)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids = list(encoded["input_ids"])
    classes = _token_classes(_character_classes(pieces), encoded["offset_mapping"])
    if bos:
        ids.insert(0, _token_id(tokenizer, bos))
        classes.insert(0, TokenClass.PROMPT)
    return TokenizedSample(name, np.array(ids, dtype=np.int32), np.array(classes, dtype=np.uint8))


def call_spans(text: str) -> Iterator[tuple[int, int, TokenClass]]:
    """The names, keys and values in the text of calls, as (start, end, class) in characters, without their quotes.

    The names that a form brings with it (`function_call`, `name`, `arguments`) are punctuation.
    """
    position = 0
    while (start := text.find("{", position)) >= 0:
        spans, position = _object_spans(text, start)
        yield from spans


def _object_spans(text: str, start: int) -> tuple[list[tuple[int, int, TokenClass]], int]:
    """The spans in the JSON object that begins at `start`, and where it ends."""
    spans: list[tuple[int, int, TokenClass]] = []
    path: list[str] = []  # the key that led into each open object or list; "" for the outermost and for list items
    is_object: list[bool] = []
    key = ""
    expects_key = False
    for found in _JSON_TOKEN.finditer(text, start):
        word = found[0]
        if word in "{[":
            path.append(key)
            is_object.append(word == "{")
            expects_key, key = word == "{", ""
        elif word in "}]":
            path.pop()
            is_object.pop()
            if not path:
                return spans, found.end()
            expects_key = False
        elif word == ",":
            expects_key, key = is_object[-1], ""
        elif word == ":":
            expects_key = False
        else:
            quoted = word.startswith('"')
            inner = (found.start() + quoted, found.end() - quoted)
            kind = _span_class(path, key, is_key=expects_key)
            if kind is not None:
                spans.append((*inner, kind))
            if expects_key:
                key = text[slice(*inner)]
    return spans, len(text)


def _span_class(path: Sequence[str], key: str, *, is_key: bool) -> TokenClass | None:
    """`path` leads from the object that holds a call, or from the call itself, into the container at hand."""
    inside = path[2:] if path[1:2] == ["function_call"] else path[1:]
    if inside[:1] == ["arguments"]:
        return TokenClass.KEY if is_key else TokenClass.VALUE
    if not inside and key == "name" and not is_key:
        return TokenClass.NAME
    return None


def _character_classes(pieces: Sequence[Piece]) -> npt.NDArray[np.uint8]:
    plain = {"prompt": TokenClass.PROMPT, "functions": TokenClass.FUNCTIONS, "prose": TokenClass.PROSE}
    parts = []
    for piece in pieces:
        part = np.full(len(piece.text), plain.get(piece.role, TokenClass.PUNCT), dtype=np.uint8)
        if piece.role == "call":
            for start, end, kind in call_spans(piece.text):
                part[start:end] = kind
        parts.append(part)
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint8)


def _token_classes(characters: npt.NDArray[np.uint8], offsets: Sequence[tuple[int, int]]) -> list[int]:
    """The class of each token from those of its characters.

    A byte-level tokenizer may leave a token's leading space out of its offsets, and gives the several tokens of one
    character the same offsets: a token owns what lies between the end of the one before and its own end, or else
    its own first character.
    """
    if not len(characters) or not len(offsets):
        return [int(TokenClass.PROMPT)] * len(offsets)
    start, end = np.array(offsets, dtype=np.int64).T
    reached = np.concatenate([[0], np.maximum.accumulate(end)[:-1]])
    advances = end > reached
    low = np.where(advances, reached, np.minimum(start, len(characters) - 1))
    high = np.where(advances, end, low + 1)
    # nearly every token lies in one class; the rest is looked at one by one
    changes = np.concatenate([[0], np.cumsum(characters[1:] != characters[:-1])])
    classes = characters[low].astype(np.int64)
    for at in np.flatnonzero(changes[low] != changes[high - 1]):
        classes[at] = _most_specific(characters[low[at] : high[at]])
    return [int(kind) for kind in classes]


def _most_specific(owned: npt.NDArray[np.uint8]) -> int:
    ranks = _RANK[owned]
    candidates = owned[ranks == ranks.max()]
    counts = np.bincount(candidates)
    return int(next(kind for kind in candidates if counts[kind] == counts.max()))


def _token_id(tokenizer: Any, token: str) -> int:
    vocabulary = tokenizer.get_vocab()
    if token not in vocabulary:
        raise InputError(f"the tokenizer lacks the token {token}, with which the dialect begins a text")
    return int(vocabulary[token])
