"""A group of prompts on its way through a llama.cpp context."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from lf_export.errors import InputError
from lf_export.runtimes.answers import Answer

# Sequences that are decoded at a time; when branches are scored, one more, 0, holds the prefix that they share.
PARALLEL = 16


@dataclass
class Piece:
    """What the branches share, what is left of each, and, once the group has begun, where they stand.

    Attributes:
        number: the group's number.
        shared: the tokens to prefill once.
        texts: what follows them in each branch, one token or more.
        cells: the context's cells that the group needs at most.
        sequences: the sequence of each branch.
        answers: what each has written.
        room: how many tokens each may write.
    """

    number: int
    shared: list[int]
    texts: list[list[int]]
    cells: int
    sequences: list[int] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    room: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, number: int, prefix: Sequence[int], branches: Sequence[Sequence[int]], new: int) -> "Piece":
        """The group `number`, whose answers have at most `new` tokens.

        Raises:
            InputError: there are more branches than sequences.
        """
        if len(branches) > PARALLEL:
            raise InputError(f"{len(branches)} branches of one prefix, expected at most {PARALLEL}")
        shared, tail = split_last(prefix)
        texts = [tail + list(branch) for branch in branches]
        return cls(number, shared, texts, len(shared) + sum(len(text) + new for text in texts))

    @property
    def over(self) -> bool:
        """Whether every answer has ended."""
        return all(answer.over for answer in self.answers)


def split_last(prefix: Sequence[int]) -> tuple[list[int], list[int]]:
    """The prefix without its last token, and that token: each branch decodes it to have its logits."""
    return list(prefix[:-1]), list(prefix[-1:])
