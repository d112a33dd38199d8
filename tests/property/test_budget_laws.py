from hypothesis import given
from hypothesis import strategies as st

from lf_export.quant.budget import ranked, spend

ITEMS = st.lists(st.tuples(st.integers(1, 10**9), st.floats(-1, 1e6)), min_size=1, max_size=40)


@given(ITEMS, st.floats(0, 1))
def test_the_budget_is_kept_and_nothing_that_is_left_out_would_fit(
    items: list[tuple[int, float]], share: float
) -> None:
    costs, savings = zip(*items, strict=True)
    budget = int(share * sum(costs))
    taken = spend(costs, savings, budget)
    left = budget - sum(cost for cost, took in zip(costs, taken, strict=True) if took)
    assert left >= 0
    assert all(cost > left for cost, took in zip(costs, taken, strict=True) if not took)


@given(ITEMS, st.floats(0, 1))
def test_what_saves_more_for_no_more_is_never_left_out_for_what_saves_less(
    items: list[tuple[int, float]], share: float
) -> None:
    costs, savings = zip(*items, strict=True)
    taken = spend(costs, savings, int(share * sum(costs)))
    for i, (cost, saving) in enumerate(items):
        for j, (other_cost, other_saving) in enumerate(items):
            better = saving / cost > other_saving / other_cost and cost <= other_cost
            assert not (better and taken[j] and not taken[i])


@given(ITEMS)
def test_a_rank_is_a_permutation_and_a_full_budget_takes_all(items: list[tuple[int, float]]) -> None:
    costs, savings = zip(*items, strict=True)
    assert sorted(ranked(costs, savings)) == list(range(len(items)))
    assert all(spend(costs, savings, sum(costs)))


@given(st.lists(st.integers(1, 64), min_size=1, max_size=40), st.floats(4.001, 7.999), st.randoms())
def test_an_average_of_bits_is_never_above_its_target(sizes: list[int], target: float, rng: object) -> None:
    savings = [rng.random() for _ in sizes]  # type: ignore[attr-defined]
    extra = int(target * sum(sizes)) - 4 * sum(sizes)
    taken = spend([4 * size for size in sizes], savings, extra)
    stored = sum(size * (8 if took else 4) for size, took in zip(sizes, taken, strict=True))
    assert stored <= target * sum(sizes)
