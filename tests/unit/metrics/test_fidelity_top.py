import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lf_export.metrics.fidelity import compare_logits, log_softmax
from lf_export.metrics.fidelity_top import compare_top, concatenate_top
from lf_export.metrics.kept import keep


def _top(logits: np.ndarray, k: int) -> list[tuple[list[int], list[float]]]:
    """The k likeliest of each row, as a server writes them: float32 in decimal."""
    found = []
    for row in log_softmax(logits):
        order = np.argsort(-row, kind="stable")[:k]
        found.append((order.tolist(), [float(f"{value:.9g}") for value in row[order]]))
    return found


@given(
    seed=st.integers(0, 2**32 - 1),
    k=st.integers(1, 12),
    width=st.integers(12, 60),
    scale=st.floats(0.1, 20),
    noise=st.floats(0, 5),
)
@example(seed=0, k=11, width=12, scale=1.0, noise=3.0)  # what is not shown has 1e-5, and its rounding is 1e-3 of that
def test_the_bound_is_never_over_the_kl_of_the_whole_vocabulary(
    seed: int, k: int, width: int, scale: float, noise: float
) -> None:
    rng = np.random.default_rng(seed)
    baseline = rng.normal(0, scale, (3, width)).astype(np.float32)
    artifact = (baseline + rng.normal(0, noise, baseline.shape)).astype(np.float32)
    whole = compare_logits(baseline, artifact, [0, 1, 2])
    shown = compare_top(keep(baseline), _top(artifact, k))
    assert (shown.kl_at_least >= 0).all()
    assert (shown.kl_at_least <= whole.kl + 1e-4).all()
    assert (shown.same_top1 == whole.same_top1).all()
    known = ~np.isnan(shown.margin)
    if k > 1:
        np.testing.assert_allclose(shown.margin[known], whole.margin[known], atol=1e-4)
        assert known[whole.same_top1].all()


def test_all_tokens_shown_give_the_kl_itself() -> None:
    rng = np.random.default_rng(0)
    baseline, artifact = rng.normal(0, 1, (2, 4, 30)).astype(np.float32)
    whole = compare_logits(baseline, artifact, [0, 0, 0, 0])
    np.testing.assert_allclose(compare_top(keep(baseline), _top(artifact, 30)).kl_at_least, whole.kl, rtol=1e-3)


def test_a_preferred_token_that_is_not_shown_has_no_margin() -> None:
    baseline = np.log(np.array([[0.7, 0.2, 0.1]], np.float32))
    shown = compare_top(keep(baseline), [([1, 2], [np.log(0.6), np.log(0.3)])])
    assert np.isnan(shown.margin[0])
    assert not shown.same_top1[0]
    # By hand: 0.2 log(0.2/0.6) + 0.1 log(0.1/0.3) + 0.7 log(0.7/0.1)
    assert shown.kl_at_least[0] == pytest.approx(0.2 * np.log(1 / 3) + 0.1 * np.log(1 / 3) + 0.7 * np.log(7), rel=1e-5)


def test_tokens_beyond_the_baselines_vocabulary_count_among_all_others() -> None:
    baseline = np.log(np.array([[0.75, 0.25]], np.float32))
    shown = compare_top(keep(baseline), [([5, 0], [np.log(0.6), np.log(0.3)])])
    assert shown.kl_at_least[0] == pytest.approx(0.75 * np.log(0.75 / 0.3) + 0.25 * np.log(0.25 / 0.7), rel=1e-5)
    assert not shown.same_top1[0]


def test_answers_are_joined_in_order() -> None:
    baseline = np.zeros((1, 3), np.float32)
    parts = [compare_top(keep(baseline), [([index], [-0.5])]) for index in (0, 1)]
    assert concatenate_top(parts).same_top1.tolist() == [True, False]
