"""Functions blocks: which functions a conversation shows, and the files of conversations built on them."""

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from generator.conversations import (
    TRAITS,
    Conversation,
    clarify,
    multi_turn,
    no_function_fits,
    parallel,
    single,
    tool,
    traits,
)
from generator.seeds import Function, Split

Record = dict[str, Any]

# A block of six short functions is about 330 tokens of a small vocabulary; characters stand in for tokens here.
MOST_CHARACTERS = 1500


class Supply:
    """The functions of a split, drawn so that each is used about as often as any other."""

    def __init__(self, split: Split, rng: random.Random) -> None:
        self.split = split
        self.rng = rng
        self.uses: Counter[str] = Counter()

    def draw(self, fits: Callable[[Function], bool] = lambda _: True) -> Function | None:
        """A least-used function that `fits`; it counts as used."""
        ranked = [(self.uses[function.name], self.rng.random(), function) for function in self.split.functions]
        for _, _, function in sorted(ranked, key=lambda row: row[:2]):
            if fits(function):
                self.uses[function.name] += 1
                return function
        return None


def can(function: Function, category: str) -> bool:
    """Whether `function` can be the subject of a conversation of `category`."""
    if category == "parallel":
        return bool(function.parallel)
    if category == "clarify":
        return bool(function.missing)
    if category == "multi_turn":
        return function.result is not None and function.answer is not None
    if category in {"single", "one_of_several"}:
        return single(function, _Anything(), random.Random(0), "plain") is not None
    if category in TRAITS:
        return any(category in _traits(function, template) for template in function.phrasings)
    return True


def converse(
    category: str, function: Function, shown: Sequence[Function], split: Split, rng: random.Random, *, end: str = "call"
) -> Conversation | None:
    """A conversation of `category` about `function`, which is among those `shown`."""
    if category == "parallel":
        return parallel(function, split.pools, rng)
    if category == "clarify":
        return clarify(function, rng)
    if category == "multi_turn":
        others = [other for other in shown if other is not function]
        return multi_turn(function, rng.choice(others) if others else None, split.pools, rng, end=end)
    wanted = category if category in TRAITS else "plain" if category in {"single", "one_of_several"} else None
    return single(function, split.pools, rng, wanted)


def distractors(
    shown: Sequence[Function], size: int, split: Split, rng: random.Random, *, same_domain: bool
) -> list[Function]:
    """`shown` in a fresh order with others up to `size`, of the same domain or each of a domain of its own."""
    block = list(shown)
    domains = {function.domain for function in block}
    rest = [function for function in split.functions if function not in block]
    rng.shuffle(rest)
    for function in rest:
        if len(block) >= size:
            break
        fits = function.domain in domains if same_domain else function.domain not in domains
        if fits and characters([*block, function]) <= MOST_CHARACTERS:
            block.append(function)
            domains.add(function.domain)
    rng.shuffle(block)
    return block


def characters(functions: Sequence[Function]) -> int:
    """The length of the functions' schemas as they are shown, in characters."""
    return sum(_length(function) for function in functions)


def record(name: str, category: str, conversation: Conversation, shown: Sequence[Function], **extra: Any) -> Record:
    """The JSON object of one conversation."""
    row: Record = {"id": name, "category": category, "domain": conversation.domain, **extra}
    row["phrasings"] = conversation.phrasings
    row["messages"] = conversation.messages
    row["tools"] = [tool(function) for function in shown]
    return row


def calibration_calls(split: Split, quotas: dict[str, int], seed: int) -> list[Record]:
    """Conversations about functions, each with a block of its own, by category."""
    rng = random.Random(seed)
    supply = Supply(split, rng)
    rows: list[Record] = []
    for category, count in quotas.items():
        made = 0
        while made < count:
            function = supply.draw(lambda candidate, kind=category: can(candidate, kind))
            if function is None:
                raise SystemExit(f"error: no seed function can make a conversation of category {category}")
            same = category == "one_of_several" or (category != "single" and rng.random() < 0.4)
            size = rng.randint(2, 6)
            if category == "no_function_fits":
                others = [other for other in split.functions if other.domain != function.domain]
                shown = distractors([rng.choice(others)], size, split, rng, same_domain=False)
                shown = [other for other in shown if other.domain != function.domain]
                conversation: Conversation | None = no_function_fits(function, split, rng)
            else:
                shown = distractors([function], size, split, rng, same_domain=same)
                end = rng.choice(["call", "prose"])
                conversation = converse(category, function, shown, split, rng, end=end)
            if conversation is None or len(shown) < 2:
                continue
            made += 1
            rows.append(record(f"calls-{len(rows) + 1:04d}", category, conversation, shown))
    rng.shuffle(rows)
    return [{**row, "id": f"calls-{number:04d}"} for number, row in enumerate(rows, 1)]


def _traits(function: Function, template: str) -> set[str]:
    return traits(function, template)


def _length(function: Function) -> int:
    return len(json.dumps(tool(function), separators=(",", ":")))


class _Anything(dict):  # type: ignore[type-arg]
    """Pools that hold something under every name, to ask only whether a phrasing exists."""

    def __missing__(self, key: str) -> list[str]:
        return [f"{key} {number}" for number in range(60)]
