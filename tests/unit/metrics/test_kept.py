"""What is kept of the baseline's distributions says what the whole would have said, within a bound that holds."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lf_export.errors import StepError
from lf_export.metrics import kept as kept_module
from lf_export.metrics.fidelity import compare_logits
from lf_export.metrics.kept import LEAST_TOKENS, MOST_TOKENS, Kept, compare_kept, keep


def _pair(seed: int, width: int, scale: float, noise: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    baseline = rng.normal(0, scale, (3, width)).astype(np.float32)
    return baseline, (baseline + rng.normal(0, noise, baseline.shape)).astype(np.float32)


@given(
    seed=st.integers(0, 2**32 - 1),
    width=st.integers(2, 900),
    scale=st.floats(0, 20),
    noise=st.floats(0, 5),
    most=st.integers(1, 400),
)
@example(seed=0, width=900, scale=0.0, noise=5.0, most=1)  # flat, and nearly nothing stays
@example(seed=1, width=65, scale=20.0, noise=0.0, most=400)
def test_the_kl_over_the_whole_vocabulary_lies_between_the_bound_and_the_bound_with_its_room(
    seed: int, width: int, scale: float, noise: float, most: int
) -> None:
    baseline, artifact = _pair(seed, width, scale, noise)
    whole = compare_logits(baseline, artifact, [0, 1, 0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept_module, "MOST_TOKENS", most)
        patch.setattr(kept_module, "LEAST_TOKENS", min(most, 8))
        small = keep(baseline)
    found = compare_kept(small, artifact, [0, 1, 0])
    rounding = 1e-5 * (1 + whole.kl)  # log-probabilities are float32
    assert (found.kl <= whole.kl + rounding).all()
    assert (whole.kl <= found.kl + found.kl_room + rounding).all()
    assert (found.same_top1 == whole.same_top1).all()
    np.testing.assert_array_equal(found.margin, whole.margin)
    np.testing.assert_array_equal(found.nll, whole.nll)
    if most > 1:
        np.testing.assert_allclose(found.baseline_margin, whole.baseline_margin, atol=1e-6)


def test_the_model_itself_has_a_kl_of_exactly_nothing() -> None:
    baseline, _ = _pair(0, 6000, 3.0, 0.0)
    assert compare_kept(keep(baseline), baseline, [0, 0, 0]).kl.tolist() == [0, 0, 0]


def test_a_small_vocabulary_stays_whole_and_a_large_one_has_a_bounded_size() -> None:
    assert keep(_pair(0, LEAST_TOKENS, 20.0, 0.0)[0]).counts.tolist() == [LEAST_TOKENS] * 3
    flat = keep(np.zeros((2, 40_000), np.float32))
    assert flat.counts.tolist() == [MOST_TOKENS] * 2
    assert np.exp(flat.rest) == pytest.approx(1 - MOST_TOKENS / 40_000)
    sure = np.zeros((1, 40_000), np.float32)
    sure[0, 7] = 40
    assert (keep(sure).counts[0], keep(sure).ids[0]) == (LEAST_TOKENS, 7)


def test_likely_tokens_stay_until_the_others_have_next_to_nothing() -> None:
    found = keep(_pair(0, 20_000, 7.0, 0.0)[0])
    assert (np.exp(found.rest) < kept_module.LEFT_OUT).all()
    assert (np.array([np.exp(row, dtype=np.float64).sum() for _, row in found.rows()]) > 1 - 2e-5).all()
    assert found.counts.max() < MOST_TOKENS


def test_columns_that_only_one_of_both_has_do_not_count() -> None:
    baseline, artifact = _pair(3, 500, 3.0, 0.5)
    whole = compare_logits(baseline, artifact, [0, 1, 2])
    wider = np.concatenate([artifact, np.full((3, 12), -5, np.float32)], axis=1)
    np.testing.assert_allclose(compare_kept(keep(baseline), wider, [0, 1, 2]).kl, whole.kl, rtol=1e-3)
    padded = np.concatenate([baseline, np.full((3, 12), 4, np.float32)], axis=1)
    found = compare_kept(keep(padded), artifact, [0, 1, 2])
    np.testing.assert_allclose(found.kl, whole.kl, rtol=1e-3)
    np.testing.assert_allclose(found.baseline_margin, whole.baseline_margin, atol=1e-5)


def test_an_artifact_without_the_tokens_that_are_preferred_is_an_error() -> None:
    baseline = np.zeros((1, 300), np.float32)
    baseline[0, 150:] = 30
    with pytest.raises(StepError, match="lacks those that the baseline prefers"):
        compare_kept(keep(baseline), np.zeros((1, 100), np.float32), [0])


def test_what_is_saved_is_what_is_read(tmp_path: Path) -> None:
    found = keep(_pair(5, 700, 2.0, 0.0)[0])
    found.save(tmp_path / "a")
    again = Kept.load(tmp_path / "a")
    assert again.width == found.width
    for name in ("counts", "ids", "logprobs", "rest", "rest_plogp"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))


def test_a_file_that_is_cut_or_missing_is_an_error(tmp_path: Path) -> None:
    keep(_pair(5, 700, 2.0, 0.0)[0]).save(tmp_path / "a")
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:-9])
    for name in ("a", "b"):
        with pytest.raises(StepError, match="cannot be read"):
            Kept.load(tmp_path / name)
