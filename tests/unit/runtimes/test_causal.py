"""The session over a Transformers model gives what the plain model gives, one sequence at a time."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import tiny_model, tiny_tokenizer

from lf_export.runtimes import causal
from lf_export.runtimes.causal import CausalSession

PREFIX = [5, 17, 40, 41, 90]
BRANCHES = [[7, 8, 9], [100], [20, 21, 22, 23, 24, 25]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoModelForCausalLM

    folder: Path = tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def session(model: Any) -> CausalSession:
    return CausalSession(model, tiny_tokenizer(), name="torch", representative=True, load_seconds=0.0)


@torch.inference_mode()
def _greedy(model: Any, prompt: list[int], steps: int, ends: frozenset[int]) -> list[int]:
    ids = list(prompt)
    for _ in range(steps):
        ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] in ends:
            break
    return ids[len(prompt) :]


@pytest.mark.parametrize("prefix", [PREFIX, PREFIX[:1], []])
def test_branches_that_share_a_prefix_answer_as_if_alone(model: Any, session: CausalSession, prefix: list[int]) -> None:
    found = session.generate(prefix, BRANCHES, 12)
    assert [list(answer.ids) for answer in found] == [
        _greedy(model, prefix + branch, 12, session.eos_ids) for branch in BRANCHES
    ]


@pytest.mark.parametrize("prefix", [PREFIX, PREFIX[:1]])
def test_scores_are_the_rows_that_predict_each_token(model: Any, session: CausalSession, prefix: list[int]) -> None:
    starts = [0, 1, 3]
    found = session.score(prefix, BRANCHES, starts)
    for branch, start, rows in zip(BRANCHES, starts, found, strict=True):
        with torch.inference_mode():
            whole = model(input_ids=torch.tensor([prefix + branch])).logits[0].numpy()
        assert rows.shape == (len(branch) - start, session.vocab_size)
        # float32 sums in another order
        np.testing.assert_allclose(rows, whole[len(prefix) + start - 1 : -1], atol=2e-5)


def test_times_grow_and_there_is_one_for_each_token(session: CausalSession) -> None:
    answer = session.generate_one([5, 6, 7], 6)
    assert len(answer.times) == len(answer.ids) > 0
    assert list(answer.times) == sorted(answer.times)
    assert answer.times[0] > 0


def test_an_end_token_ends_an_answer_and_is_not_in_its_text(model: Any, session: CausalSession) -> None:
    first = session.generate_one([5, 6, 7], 4).ids[1]
    stopping = CausalSession(model, tiny_tokenizer(), name="torch", representative=True, load_seconds=0.0)
    stopping.eos_ids = frozenset({first})
    answer = stopping.generate_one([5, 6, 7], 4)
    assert answer.ids[-1] == first
    assert len(answer.ids) <= 2
    assert answer.text == stopping.decode(answer.ids[:-1])


@pytest.mark.parametrize("most", [1, 3, 5, 48])
def test_groups_of_different_lengths_answer_as_if_alone(
    model: Any, session: CausalSession, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(causal, "_MOST_ROWS", most)  # rows of later groups join while others are under way
    groups = [(PREFIX, BRANCHES), ([50], [[60, 61]]), ([3], []), (PREFIX * 3, [[9], [70, 71, 72, 73]]), ([8], [[9]])]
    found = dict(session.generate_groups(groups, 90))  # beyond the room that a cache sets aside at once
    assert {number: [list(answer.ids) for answer in answers] for number, answers in found.items()} == {
        number: [_greedy(model, prefix + branch, 90, session.eos_ids) for branch in branches]
        for number, (prefix, branches) in enumerate(groups)
    }


def test_a_group_comes_as_soon_as_it_ends(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(causal, "_MOST_ROWS", 3)
    stopping = CausalSession(model, tiny_tokenizer(), name="torch", representative=True, load_seconds=0.0)
    stopping.eos_ids = frozenset({stopping.generate_one([50, 60], 4).ids[1]})
    groups = [([5, 6], [[7, 8]]), ([50], [[60]]), ([50], [[60]]), ([50], [[60]]), ([50], [[60]])]
    alone = [stopping.generate_one(prefix + branch, 30) for prefix, (branch,) in groups]
    order = [number for number, _ in stopping.generate_groups(groups, 30)]
    assert len(alone[0].ids) > 8, "the first answer must be the longest for this test"
    assert order == [1, 2, 3, 4, 0]


def test_keys_and_values_of_long_prompts_leave_room_for_fewer_rows(session: CausalSession) -> None:
    assert session._most_rows([([1] * 10, [[2]])], 10) == 48
    assert session._most_rows([([1] * 2_000_000, [[2]])], 10) < 48


def test_a_row_that_ends_leaves_the_others_as_they_are(model: Any) -> None:
    stopping = CausalSession(model, tiny_tokenizer(), name="torch", representative=True, load_seconds=0.0)
    alone = [stopping.generate_one(PREFIX + branch, 10) for branch in BRANCHES]
    stopping.eos_ids = frozenset({alone[0].ids[2]})
    ended = [list(answer.ids) for answer in stopping.generate(PREFIX, BRANCHES, 10)]
    assert ended == [_greedy(model, PREFIX + branch, 10, stopping.eos_ids) for branch in BRANCHES]
    assert len({len(ids) for ids in ended}) > 1


@pytest.mark.parametrize("most", [1, 5, 48])
@pytest.mark.parametrize(
    ("family", "window"),
    [
        ("mistral", {"sliding_window": 8}),
        ("qwen2", {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 1}),
    ],
    ids=["all-layers", "some-layers"],
)
def test_prompts_longer_than_a_sliding_window_answer_as_if_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, window: dict[str, Any], most: int
) -> None:
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(causal, "_MOST_ROWS", most)
    model = AutoModelForCausalLM.from_pretrained(tiny_model(tmp_path / "tiny", family, **window)).eval()
    session = CausalSession(model, tiny_tokenizer(), name="torch", representative=True, load_seconds=0.0)
    # branches shorter and longer than the window, behind prefixes shorter and longer
    groups = [(PREFIX * 4, [[7], list(range(20, 40)), [8, 9, 10]]), ([50], [list(range(60, 75)), [3, 4]])]
    found = dict(session.generate_groups(groups, 20))
    assert {number: [list(answer.ids) for answer in answers] for number, answers in found.items()} == {
        number: [_greedy(model, prefix + branch, 20, session.eos_ids) for branch in branches]
        for number, (prefix, branches) in enumerate(groups)
    }
    (rows,) = session.score(PREFIX * 4, [list(range(20, 40))], [3])
    with torch.inference_mode():
        whole = model(input_ids=torch.tensor([PREFIX * 4 + list(range(20, 40))])).logits[0].numpy()
    np.testing.assert_allclose(rows, whole[len(PREFIX) * 4 + 2 : -1], atol=2e-5)


@pytest.mark.parametrize("lengths", [[5], [9, 9, 9], [200, 3, 190, 4, 90], [1, 400], list(range(1, 60))])
def test_batches_of_like_length_hold_every_row_once_and_little_padding(lengths: list[int]) -> None:
    batches = causal._of_like_length(lengths)
    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    cost = sum(len(batch) * max(lengths[place] for place in batch) + causal._CALL_TOKENS for batch in batches)
    assert cost <= len(lengths) * max(lengths) + causal._CALL_TOKENS
    assert cost <= 1.5 * sum(lengths) + causal._CALL_TOKENS * len(lengths)
