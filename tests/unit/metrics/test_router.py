import numpy as np
import numpy.typing as npt
import pytest

from lf_export.metrics.router import fit_router


def logits(count: int, seed: int, *, hint: float) -> tuple[list[npt.NDArray[np.float32]], list[bool]]:
    """Noise over 400 tokens; where a call is wanted, three tokens that are never the likeliest are likelier."""
    chance = np.random.default_rng(seed)
    rows = chance.normal(size=(count, 400)).astype(np.float32)
    calls = [bool(at % 2) for at in range(count)]
    rows[np.array(calls), 10:13] += hint
    rows[:, 0] = 30  # the same first choice for all
    rows += chance.normal(size=(count, 1)).astype(np.float32) * 5  # a shift of all logits means nothing
    return list(rows), calls


def test_a_router_sees_what_the_likeliest_token_does_not_show() -> None:
    learnt, calls = logits(120, 0, hint=4)
    held, expected = logits(60, 1, hint=4)
    router = fit_router(learnt, calls)
    assert sum(a == b for a, b in zip(router.wants_call(held), expected, strict=True)) >= 58


def test_where_there_is_nothing_to_see_it_guesses() -> None:
    learnt, calls = logits(120, 0, hint=0)
    held, expected = logits(400, 1, hint=0)
    right = sum(a == b for a, b in zip(fit_router(learnt, calls).wants_call(held), expected, strict=True))
    assert 150 < right < 250


def test_it_is_the_same_whatever_is_added_to_all_logits() -> None:
    learnt, calls = logits(40, 0, hint=2)
    router = fit_router(learnt, calls)
    held, _ = logits(30, 2, hint=2)
    assert router.wants_call(held) == router.wants_call([row + 7 for row in held])


def test_equal_prompts_and_one_kind_alone_do_not_break_it() -> None:
    row = np.zeros(50, np.float32)
    assert len(fit_router([row] * 6, [True, False] * 3).wants_call([row])) == 1
    with pytest.raises(ValueError, match="both kinds"):
        fit_router([row, row], [True, True])
