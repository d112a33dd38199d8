"""What is noted down of a run comes back as it was, and damage to it shows."""

import json
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lf_export.formats.gguf_imatrix import Imatrix
from lf_export.formats.shards import Entry, Shards
from lf_export.quant.moments import Moments
from lf_export.steps.journal import state_of, state_text

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
STATES = st.dictionaries(st.text(), VALUES, max_size=6)


@given(STATES)
def test_a_state_comes_back_with_the_order_of_its_keys(state: dict[str, Any]) -> None:
    again = state_of(state_text(state))
    assert again == state
    assert json.dumps(again) == json.dumps(state)


@given(STATES, st.data())
def test_a_state_that_is_cut_short_is_none(state: dict[str, Any], data: st.DataObject) -> None:
    text = state_text(state)
    assert state_of(text[: data.draw(st.integers(0, len(text) - 1))]) is None


@given(STATES, STATES)
def test_the_digest_of_another_state_is_refused(state: dict[str, Any], other: dict[str, Any]) -> None:
    value = json.loads(state_text(state))
    value["state"] = other
    assert (state_of(json.dumps(value)) is None) == (json.dumps(other) != json.dumps(state))


@given(st.text())
def test_any_other_text_is_none(text: str) -> None:
    assert state_of(text) is None


@given(st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=8), st.floats(0.5, 1e6, width=32))
def test_an_importance_matrix_comes_back_to_the_bit(sums: list[float], weight: float) -> None:
    moments = Moments.zeros(len(sums))
    moments.upper.diagonal().copy_(moments.upper.new_tensor(sums))
    moments.weight_sum = weight
    first, second = Imatrix(), Imatrix()
    first.add("blk.0.attn_q.weight", moments)
    second.restore(first.snapshot())
    one, other = (each.importance("blk.0.attn_q.weight") for each in (first, second))
    assert np.array_equal(one, other)
    assert one.dtype == other.dtype
    assert len(second) == 1


@given(st.sets(st.integers(0, 5)))
def test_shards_know_what_they_hold(tmp_path_factory: Any, written: set[int]) -> None:
    import torch

    folder = tmp_path_factory.mktemp("shards")
    entries = [Entry(f"t{number}", "F32", (2,)) for number in range(6)]
    first = Shards(folder, entries, shard_bytes=20)
    for number in sorted(written, reverse=True):
        first.put(f"t{number}", torch.full((2,), float(number)))
    assert first.snapshot() == [f"t{number}" for number in sorted(written)]
    again = Shards(folder, entries, shard_bytes=20)
    again.restore(first.snapshot())
    for number in set(range(6)) - written:
        again.put(f"t{number}", torch.full((2,), float(number)))
    again.finish()
    whole = tmp_path_factory.mktemp("whole")
    undisturbed = Shards(whole, entries, shard_bytes=20)
    for number in range(6):
        undisturbed.put(f"t{number}", torch.full((2,), float(number)))
    undisturbed.finish()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in whole.iterdir()
    }
