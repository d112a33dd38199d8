"""Which of many things are worth their price: a knapsack, filled by what each saves for its cost."""

from collections.abc import Sequence


def ranked(costs: Sequence[int], savings: Sequence[float]) -> list[int]:
    """Places of the items, the largest saving for its cost first; the earlier of equals first."""
    return sorted(range(len(costs)), key=lambda i: (-savings[i] / costs[i], i))


def spend(costs: Sequence[int], savings: Sequence[float], budget: int) -> list[bool]:
    """Which items to take, for at most `budget` in all.

    In the order of `ranked`, each that still fits: with many items that are small beside the budget, as the linears of
    a model are, this is within one item of the best. Nothing that is left out would fit.

    Args:
        costs: of each item, above zero.
        savings: of each item.
        budget: at least zero.
    """
    taken = [False] * len(costs)
    for i in ranked(costs, savings):
        if costs[i] <= budget:
            taken[i] = True
            budget -= costs[i]
    return taken
