"""Requests with functions shown that are answered by a call or by prose: what a router learns to tell apart."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from lf_export.calibration.samples import Sample
from lf_export.errors import InputError
from lf_export.functions.answers import answer_of
from lf_export.functions.spec import FunctionSpec

# Of each kind; fewer say nothing, and a third of them is held out.
_FEWEST = 6


@dataclass(frozen=True)
class Choice:
    """A conversation up to its first answer, and whether that answer calls."""

    messages: tuple[Mapping[str, Any], ...] = field(hash=False)
    functions: tuple[FunctionSpec, ...]
    calls: bool


def choices(samples: Sequence[Sample], count: int, seed: int) -> tuple[list[Choice], list[Choice]]:
    """At most `count` choices, as many that call as that do not: two thirds to learn from, a third held out.

    Requests of conversations without functions are shown the functions of another, drawn at random: nothing of them
    serves a request for chat.

    Raises:
        InputError: there are too few of one kind.
    """
    chance = random.Random(f"{seed}/choices")  # noqa: S311 - a reproducible choice, no secret
    told = [choice for sample in samples if sample.kind == "call" and (choice := _choice(sample))]
    shown = [choice.functions for choice in told]
    kinds = {calls: [choice for choice in told if choice.calls == calls] for calls in (True, False)}
    chat = [choice for sample in samples if sample.kind == "chat" and (choice := _choice(sample)) and shown]
    borrowed = [Choice(choice.messages, chance.choice(shown), calls=False) for choice in chat]
    for each in (*kinds.values(), borrowed):
        chance.shuffle(each)
    # Half of the prose is that of requests that no function serves or that lack something, where there are enough.
    kinds[False] = _alternating(kinds[False], borrowed)
    most = min(count // 2, *map(len, kinds.values()))
    if most < _FEWEST:
        raise InputError(
            f"{len(kinds[True])} calibration conversations with functions call and {len(kinds[False])} do not, "
            f"a router needs {_FEWEST} of each at least",
            "name more under calibration.calls and calibration.chat, or leave the arm routed out",
        )
    learnt, held = list[Choice](), list[Choice]()
    for each in kinds.values():
        third = most // 3
        held += each[:third]
        learnt += each[third:most]
    return learnt, held


def _choice(sample: Sample) -> Choice | None:
    """The sample up to its first answer; None for one without."""
    before = tuple(takewhile(lambda message: message["role"] != "assistant", sample.messages))
    if not before or len(before) == len(sample.messages):
        return None
    return Choice(before, sample.functions, answer_of(sample.messages[len(before)]).kind == "call")


def _alternating(first: Sequence[Choice], second: Sequence[Choice]) -> list[Choice]:
    """One of each in turn, then what is left of the longer."""
    shared = min(len(first), len(second))
    paired = [each for pair in zip(first, second, strict=False) for each in pair]
    return [*paired, *first[shared:], *second[shared:]]
