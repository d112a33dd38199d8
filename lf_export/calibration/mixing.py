"""Which samples calibrate: a mix of calls and chat by their share of tokens, the same for the same seed."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lf_export.calibration.tokens import TokenizedSample
from lf_export.errors import InputError

Side = Literal["call", "chat"]


@dataclass(frozen=True)
class Candidate:
    """A sample that may be taken."""

    side: Side
    category: str
    tokens: TokenizedSample


@dataclass(frozen=True)
class Dropped:
    """A sample that does not fit, which is left out whole: nothing is ever cut."""

    name: str
    side: Side
    tokens: int
    call_tokens: int


@dataclass(frozen=True)
class Mix:
    """What was taken, in order, what was dropped, and which side ran out before the budget was used, if one did."""

    taken: tuple[Candidate, ...]
    dropped: tuple[Dropped, ...]
    ran_out: Side | None


def mix(
    candidates: Sequence[Candidate],
    *,
    share: float = 0.5,
    num_samples: int | None = None,
    max_tokens: int | None = None,
    max_seq_length: int,
    seed: int = 0,
) -> Mix:
    """Take samples so that calls have `share` of the tokens, until a budget is used or a side runs out.

    Each side is shuffled with `seed`, its categories in proportion at any length. Without a budget everything that
    keeps the share is taken. Rows longer than `max_seq_length` are dropped whole.

    Raises:
        InputError: a side that the share needs has no sample that fits.
    """
    fitting = [candidate for candidate in candidates if len(candidate.tokens) <= max_seq_length]
    dropped = tuple(
        Dropped(candidate.tokens.name, candidate.side, len(candidate.tokens), candidate.tokens.call_tokens)
        for candidate in candidates
        if len(candidate.tokens) > max_seq_length
    )
    sides: dict[Side, list[Candidate]] = {"call": [], "chat": []}
    for candidate in fitting:
        sides[candidate.side].append(candidate)
    needed: dict[Side, bool] = {"call": share > 0, "chat": share < 1}
    for kind, found in sides.items():
        if needed[kind] and not found:
            raise InputError(
                f"no {kind} sample of at most {max_seq_length} tokens, and a share of calls of {share:g} needs them",
                "give samples of that kind, raise max_seq_length, or set share to 0 or 1",
            )
    queues = {side: _in_proportion(found, random.Random(f"{seed}/{side}")) for side, found in sides.items()}  # noqa: S311
    taken: list[Candidate] = []
    totals: dict[Side, int] = {"call": 0, "chat": 0}
    ran_out: Side | None = None
    while num_samples is None or len(taken) < num_samples:
        total = sum(totals.values())
        # at the very start the larger side goes first
        behind = totals["call"] < share * total if total else share >= 0.5
        side: Side = "call" if behind or share == 1 else "chat"
        if not queues[side]:
            ran_out = side if num_samples or max_tokens else None
            break
        candidate = queues[side][0]
        if max_tokens is not None and total + len(candidate.tokens) > max_tokens:
            break
        taken.append(queues[side].pop(0))
        totals[side] += len(candidate.tokens)
    return Mix(tuple(taken), dropped, ran_out)


def _in_proportion(candidates: Sequence[Candidate], chance: random.Random) -> list[Candidate]:
    """Shuffled, and such that every beginning has the categories in the proportion of the whole."""
    by_category: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        by_category[candidate.category].append(candidate)
    placed: list[tuple[float, float, Candidate]] = []
    for _, members in sorted(by_category.items()):
        chance.shuffle(members)
        placed += [((at + 0.5) / len(members), chance.random(), one) for at, one in enumerate(members)]
    return [one for _, _, one in sorted(placed, key=lambda entry: entry[:2])]
