"""A stratified part of a suite: each category with its share, whole blocks where the counts allow it."""

import random
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol, TypeVar


class _Grouped(Protocol):
    @property
    def id(self) -> str: ...


Item = TypeVar("Item", bound=_Grouped)


def stratified(
    items: Sequence[Item], n: int, *, key: str = "category", group: str = "block", seed: int = 0
) -> list[Item]:
    """`n` of the items, each category with its share of the whole and whole blocks where the counts allow it.

    Args:
        items: what to choose from; the choice keeps their order.
        n: how many; all of them when there are no more.
        key: the attribute whose proportions hold, exactly up to rounding (largest remainders).
        group: the attribute of items that should stay together.
        seed: the same seed gives the same choice.
    """
    if n >= len(items):
        return list(items)
    left = _quotas(Counter(_value(item, key) for item in items), n)
    blocks: dict[Hashable, list[Item]] = defaultdict(list)
    for item in items:
        blocks[_value(item, group)].append(item)
    order = list(blocks.values())
    random.Random(seed).shuffle(order)  # noqa: S311 - a reproducible choice, no secret
    chosen: set[str] = set()
    # whole blocks first, then the rest of the counts from blocks in the same order
    for whole in (True, False):
        for members in order:
            fresh = [item for item in members if item.id not in chosen]
            wanted = Counter(_value(item, key) for item in fresh)
            if whole and any(count > left[kind] for kind, count in wanted.items()):
                continue
            for item in fresh:
                if left[_value(item, key)] > 0:
                    left[_value(item, key)] -= 1
                    chosen.add(item.id)
    return [item for item in items if item.id in chosen]


def _quotas(counts: Mapping[Hashable, int], n: int) -> Counter[Hashable]:
    total = sum(counts.values())
    quotas = Counter({kind: count * n // total for kind, count in counts.items()})
    remainders = sorted(counts, key=lambda kind: (-(counts[kind] * n % total), str(kind)))
    for kind in remainders[: n - quotas.total()]:
        quotas[kind] += 1
    return quotas


def _value(item: Any, name: str) -> Hashable:
    value: Hashable = getattr(item, name)
    return value
