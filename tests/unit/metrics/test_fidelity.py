"""Fidelity is what its formulas say, in float64, on small logits."""

import numpy as np
import pytest
import torch

from lf_export.metrics.fidelity import compare_logits, concatenate, nll, perplexity

GENERATOR = np.random.default_rng(0)


def _logits(tokens: int = 7, vocab: int = 50, scale: float = 3.0) -> np.ndarray:
    return (GENERATOR.normal(size=(tokens, vocab)) * scale).astype(np.float32)


def test_kl_is_torchs_in_double_precision() -> None:
    ours, theirs = _logits(), _logits()
    found = compare_logits(ours, theirs, range(7))
    log_p, log_q = (torch.log_softmax(torch.from_numpy(each).double(), -1) for each in (ours, theirs))
    expected = torch.nn.functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
    np.testing.assert_allclose(found.kl, expected.numpy(), rtol=1e-5)


def test_equal_logits_have_no_divergence_and_agree() -> None:
    logits = _logits()
    found = compare_logits(logits, logits.copy(), range(7))
    assert found.kl.max() < 1e-6
    assert found.same_top1.all()
    assert (found.margin > 0).all()


def test_a_flipped_preference_has_a_negative_margin() -> None:
    baseline = np.array([[0.0, 2.0, 1.0]], dtype=np.float32)
    artifact = np.array([[0.0, 1.0, 2.0]], dtype=np.float32)
    found = compare_logits(baseline, artifact, [1])
    assert not found.same_top1[0]
    assert found.margin[0] == pytest.approx(-1.0, abs=1e-6)


def test_the_baselines_margin_is_the_room_that_it_had_itself() -> None:
    baseline = np.array([[0.0, 3.0, 1.0], [5.0, 1.0, 4.5]], dtype=np.float32)
    artifact = np.array([[0.0, 2.0, 1.0], [1.0, 0.0, 3.0]], dtype=np.float32)
    found = compare_logits(baseline, artifact, [1, 0])
    np.testing.assert_allclose(found.baseline_margin, [2.0, 0.5], atol=1e-6)
    np.testing.assert_allclose(found.margin, [1.0, -2.0], atol=1e-6)


def test_columns_that_only_one_has_are_left_out() -> None:
    logits = _logits(vocab=50)
    padded = np.concatenate([logits, np.full((7, 6), 9.0, np.float32)], axis=1)
    assert compare_logits(logits, padded, range(7)).kl.max() < 1e-6


def test_nll_is_the_negative_log_likelihood_of_the_reference() -> None:
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]], dtype=np.float32))
    np.testing.assert_allclose(nll(logits, [0, 2]), -np.log([0.5, 0.7]), rtol=1e-6)
    assert perplexity(nll(logits, [0, 0])) == pytest.approx(np.sqrt(20), rel=1e-6)


def test_parts_are_joined_in_order_and_no_parts_give_no_tokens() -> None:
    one, two = (compare_logits(_logits(n), _logits(n), range(n)) for n in (2, 3))
    joined = concatenate([one, two])
    for name in ("kl", "margin", "baseline_margin", "nll"):
        np.testing.assert_array_equal(getattr(joined, name), np.concatenate([getattr(one, name), getattr(two, name)]))
    assert len(concatenate([]).kl) == 0
    assert np.isnan(perplexity(concatenate([]).nll))
