import numpy as np
import pytest
from walk_data import RandomData, RandomSample, random_data

from lf_export.errors import InputError
from lf_export.walk.batches import plan_batches

LENGTHS = [9, 30, 2, 17, 17, 5, 40, 8]


def test_batches_hold_every_token_once_and_stay_under_the_limit() -> None:
    data = random_data(LENGTHS)
    plan = plan_batches(data, 50, 320)
    covered = [i for batch in plan.batches for i in range(batch.tokens.start, batch.tokens.stop)]
    assert covered == list(range(sum(LENGTHS)))
    assert all(batch.shape[0] * batch.shape[1] <= 50 for batch in plan.batches)
    assert sorted(plan.ids.tolist()) == sorted(np.concatenate([sample.ids for sample in data.samples]).tolist())


def test_a_sample_longer_than_a_batch_runs_alone() -> None:
    plan = plan_batches(random_data([100, 3, 4]), 10, 320)
    assert [batch.shape for batch in plan.batches] == [(2, 4), (1, 100)]


def test_rows_are_the_places_before_the_padding() -> None:
    plan = plan_batches(random_data([3, 4]), 10, 320)
    assert plan.batches[0].rows.tolist() == [0, 1, 2, 4, 5, 6, 7]


def test_each_token_is_fitted_or_held_out_never_both() -> None:
    data = random_data(LENGTHS)
    plan = plan_batches(data, 50, 320)
    assert plan.heldout_samples == (4,)
    for batch in plan.batches:
        fit, held = set(batch.fit[0].tolist()), set(batch.heldout[0].tolist())
        assert not fit & held
        assert fit | held == set(batch.rows.tolist())
        assert batch.fit[1] is None
    assert sum(len(batch.heldout[0]) for batch in plan.batches) == 17


def test_weights_follow_the_token_classes_and_a_weight_of_zero_leaves_a_token_out() -> None:
    data = random_data([4, 4], weights={0: 0.0, 3: 2.5})  # two tokens of class 0, two of class 3 in each
    (batch,) = plan_batches(data, 50, 320).batches
    rows, weights = batch.fit
    assert weights is not None
    assert rows.tolist() == [2, 3]
    assert weights.tolist() == [2.5, 2.5]
    assert batch.heldout[0].tolist() == [6, 7]
    assert batch.heldout[1].tolist() == pytest.approx([2.5**0.5] * 2)


def test_one_sample_is_all_fitted() -> None:
    plan = plan_batches(random_data([12]), 50, 320)
    assert plan.heldout_samples == ()
    assert len(plan.batches[0].fit[0]) == 12


def test_held_out_rows_are_thinned_evenly_over_all_held_out_samples() -> None:
    plan = plan_batches(random_data([100] * 160), 1000, 320)
    assert len(plan.heldout_samples) == 10
    counts = [len(batch.heldout[0]) for batch in plan.batches if len(batch.heldout[0])]
    assert sum(counts) == 128
    assert min(counts) >= 12


def test_more_rows_are_held_out_where_each_linear_sees_a_share_of_the_tokens() -> None:
    plan = plan_batches(random_data([100] * 160), 1000, 320, share=2 / 8)
    assert sum(len(batch.heldout[0]) for batch in plan.batches) == 512


def test_bad_samples_are_all_named() -> None:
    empty = RandomSample(np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.uint8))
    foreign = RandomSample(np.array([1, 320], dtype=np.int32), np.zeros(2, dtype=np.uint8))
    with pytest.raises(InputError) as caught:
        plan_batches(RandomData([empty, foreign]), 50, 320)
    assert "sample 0 has no tokens" in caught.value.message
    assert "sample 1 has token id 320, the model's vocabulary ends at 320" in caught.value.message


def test_no_samples_is_an_error() -> None:
    with pytest.raises(InputError, match="no samples"):
        plan_batches(RandomData([]), 50, 320)


def test_layers_are_judged_at_tokens_that_predict_call_tokens_by_their_weights() -> None:
    data = random_data(LENGTHS, weights={3: 2.0, 0: 0.5})
    plan = plan_batches(data, 50, 320)
    (sample,) = plan.judged
    assert plan.ids[sample.tokens].tolist() == data.samples[4].ids.tolist()
    assert sample.rows.tolist() == list(range(7, 16))  # of 17 tokens those from 8 on are inside a call
    assert sample.weights.tolist() == [2.0] * 9


def test_without_call_tokens_layers_are_judged_at_every_token_that_has_a_weight() -> None:
    samples = [RandomSample(each.ids, np.zeros_like(each.classes)) for each in random_data(LENGTHS).samples]
    (sample,) = plan_batches(RandomData(samples, {0: 0.5}), 50, 320).judged
    assert sample.rows.tolist() == list(range(17))
    assert set(sample.weights.tolist()) == {0.5}
    assert plan_batches(random_data([9]), 50, 320).judged == ()
