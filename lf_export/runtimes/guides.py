"""Guides: what an answer is held to while it is written, whoever knows the grammar.

A guide is lazy unless it says otherwise: an answer is free until its next token would open a call; from that token on
the grammar decides which tokens may come. So a model that answers in prose does as it would without a guide.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt

from lf_export.errors import InputError
from lf_export.functions.grammars import CallGrammar

Row = npt.NDArray[np.float32]
"""The logits of one token, [vocab_size]."""


@dataclass(frozen=True)
class Guide:
    """What one answer is held to.

    Attributes:
        grammar: of the calls to its functions.
        mode: `lazy`: a call is held to the grammar, prose is free; `call`: the answer must be a call; `prose`: it must
            not open one.
    """

    grammar: CallGrammar
    mode: Literal["lazy", "call", "prose"] = "lazy"

    def to_json(self) -> dict[str, Any]:
        """The guide as plain JSON, for a child process."""
        return {"mode": self.mode, "grammar": vars(self.grammar)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The guide that `to_json` gave."""
        return cls(CallGrammar(**value["grammar"]), value["mode"])


Guides = Sequence[Sequence[Guide | None]]
"""A guide, or None, for each branch of each group."""


class Follower(Protocol):
    """An engine's place in a grammar."""

    def take(self, token: int) -> bool:
        """Go on over `token`; False, and nothing done, where the grammar does not take it."""

    def best(self, logits: Row) -> int | None:
        """The likeliest token that may come next, an end token where the answer is whole; None where none may."""


class Held:
    """One answer that is held to a guide.

    Args:
        guide: what it is held to.
        follow: an engine at the beginning of the guide's grammar.
        decode: token ids as text, special tokens kept.
        ends: the tokens that end an answer.
    """

    def __init__(
        self,
        guide: Guide,
        follow: Callable[[CallGrammar], Follower],
        decode: Callable[[Sequence[int]], str],
        ends: frozenset[int],
    ) -> None:
        self._guide, self._follow, self._decode, self._ends = guide, follow, decode, ends
        self._ids: list[int] = []
        self._free = False
        self._follower = follow(guide.grammar) if guide.mode == "call" else None

    def choose(self, logits: Row) -> int:
        """The token to write, greedily; it is taken as written."""
        if self._follower is not None:
            return self._next(self._follower, logits)
        token = int(logits.argmax())
        if self._free:
            return token
        if not self._opens(token):
            return self._written(token)
        if self._guide.mode == "prose":
            others = np.argsort(-logits, kind="stable").tolist()
            return self._written(next(each for each in others if not self._opens(each)))
        follower = self._follow(self._guide.grammar)
        if not all(map(follower.take, self._ids)):
            self._free = True  # the grammar does not allow what stands before: an answer that is malformed already
            return token
        self._follower = follower
        return self._next(follower, logits)

    def _next(self, follower: Follower, logits: Row) -> int:
        token = follower.best(logits)
        if token is None:
            return min(self._ends)
        follower.take(token)
        return token

    def _opens(self, token: int) -> bool:
        return token not in self._ends and self._guide.grammar.opened(self._decode([*self._ids, token]))

    def _written(self, token: int) -> int:
        self._ids.append(token)
        self._free = token in self._ends or not self._guide.grammar.may_open(self._decode(self._ids))
        return token


def check_unguided(name: str, guides: object) -> None:
    """Refuse guides for the runtime `name`, which cannot follow any.

    Raises:
        InputError: there are some.
    """
    if guides is not None:
        raise InputError(
            f"the runtime {name} cannot hold an answer to a grammar", "use torch, transformers or llamacpp"
        )
