import numpy as np
import pytest

from lf_export.calibration.mixing import Candidate, Side, mix
from lf_export.calibration.tokens import TokenClass, TokenizedSample
from lf_export.errors import InputError


def candidate(name: str, side: Side, length: int, category: str = "") -> Candidate:
    classes = np.full(length, TokenClass.VALUE if side == "call" else TokenClass.PROSE, dtype=np.uint8)
    return Candidate(side, category, TokenizedSample(name, np.arange(length, dtype=np.int32), classes))


def many(side: Side, count: int, length: int, category: str = "") -> list[Candidate]:
    return [candidate(f"{side}{category}{at}", side, length, category) for at in range(count)]


SOURCES = [*many("call", 100, 40), *many("chat", 300, 15)]


def tokens(taken: tuple[Candidate, ...], side: Side | None = None) -> int:
    return sum(len(one.tokens) for one in taken if side in {None, one.side})


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.8, 1.0])
def test_the_share_is_one_of_tokens_not_of_samples(share: float) -> None:
    taken = mix(SOURCES, share=share, max_tokens=3000, max_seq_length=100).taken
    assert tokens(taken) > 2950
    assert tokens(taken, "call") / tokens(taken) == pytest.approx(share, abs=0.02)


def test_budgets_are_never_exceeded() -> None:
    assert tokens(mix(SOURCES, max_tokens=1001, max_seq_length=100).taken) <= 1001
    assert len(mix(SOURCES, num_samples=17, max_seq_length=100).taken) == 17


def test_without_a_budget_everything_that_keeps_the_share_is_taken() -> None:
    mixed = mix(SOURCES, max_seq_length=100)
    assert len([one for one in mixed.taken if one.side == "call"]) == 100
    assert mixed.ran_out is None


def test_a_side_that_runs_out_before_the_budget_is_named() -> None:
    mixed = mix([*many("call", 100, 40), *many("chat", 2, 15)], num_samples=50, max_seq_length=100)
    assert mixed.ran_out == "chat"
    assert len(mixed.taken) < 50


def test_the_same_seed_gives_the_same_order_and_another_does_not() -> None:
    def names(seed: int) -> list[str]:
        return [one.tokens.name for one in mix(SOURCES, num_samples=40, max_seq_length=100, seed=seed).taken]

    assert names(3) == names(3)
    assert names(3) != names(4)
    assert len(set(names(3))) == 40


def test_long_samples_are_dropped_whole_by_name() -> None:
    long = [candidate("too-long", "call", 101), candidate("talk", "chat", 200), candidate("fits", "call", 100)]
    mixed = mix([*SOURCES, *long], max_seq_length=100)
    assert [(one.name, one.side, one.tokens, one.call_tokens) for one in mixed.dropped] == [
        ("too-long", "call", 101, 101),
        ("talk", "chat", 200, 0),
    ]
    assert "fits" in {one.tokens.name for one in mix([*SOURCES, *long], share=1, max_seq_length=100).taken}
    offered = {one.tokens.name: len(one.tokens) for one in SOURCES + long}
    assert all(len(one.tokens) == offered[one.tokens.name] for one in mixed.taken)


def test_every_beginning_has_the_categories_in_proportion() -> None:
    sources = [*many("call", 80, 10, "a"), *many("call", 20, 10, "b")]
    taken = mix(sources, share=1, num_samples=20, max_seq_length=100).taken
    assert [one.category for one in taken].count("b") == 4


@pytest.mark.parametrize(("side", "share"), [("call", 0.5), ("chat", 0.5), ("chat", 0.99)])
def test_a_side_without_samples_is_an_error_when_the_share_needs_it(side: Side, share: float) -> None:
    sources = [one for one in SOURCES if one.side != side]
    with pytest.raises(InputError, match=f"no {side} sample of at most 100 tokens"):
        mix(sources, share=share, max_seq_length=100)
    assert mix(sources, share=0 if side == "call" else 1, max_seq_length=100).taken
