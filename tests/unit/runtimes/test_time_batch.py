"""Batches are timed in every runtime: as many times as tokens, end tokens written, and what does not fit is refused."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import models
import pytest
import torch
from onnx_folders import Exported

from lf_export.checkpoint.index import open_checkpoint
from lf_export.errors import InputError
from lf_export.formats.gguf import FORMAT, GgufOptions
from lf_export.runtimes import causal, genai, llamacpp, onnx, runtime
from lf_export.runtimes.base import Session
from lf_export.runtimes.child import ChildSession

Cases = Callable[[str], Exported]
BATCH = [[5, 17, 40, 41], [7, 8, 9, 10], [20, 21, 22, 23]]
NEW = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.tiny_model(tmp_path_factory.mktemp("batch") / "model", max_position_embeddings=64)


@pytest.fixture(scope="module", params=["torch", "llamacpp", "onnx", "genai"])
def session(
    request: pytest.FixtureRequest, folder: Path, exported: Cases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Session]:
    path = folder
    if request.param == "llamacpp":
        path = tmp_path_factory.mktemp("gguf")
        FORMAT.open(open_checkpoint(folder), path, GgufOptions(types=("F32",), name="m"), "digest").finish()
    elif request.param != "torch":
        path = exported("llama-fp32").folder
    opened = runtime(request.param).open_session(path, 1)
    yield opened
    opened.close()


def test_each_token_has_a_time_and_end_tokens_end_nothing(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = BATCH[:1] if session.name == "genai" else BATCH
    monkeypatch.setattr(session, "eos_ids", frozenset(range(session.vocab_size)))
    times = session.time_batch(batch, NEW)
    assert len(times) == NEW
    assert times[0] > 0
    assert all(late > early for early, late in itertools.pairwise(times))


def test_what_was_timed_does_not_show_in_the_next_answer(session: Session) -> None:
    before = session.generate_one(BATCH[0], NEW).ids
    session.time_batch(BATCH[:1], NEW)
    assert session.generate_one(BATCH[0], NEW).ids == before


def test_what_does_not_fit_the_context_is_refused(session: Session) -> None:
    with pytest.raises(InputError, match="do not fit the model's context"):
        session.time_batch([[5] * 10_000], NEW)
    for wrong in ([[5, 6], [5]], [[]], []):
        with pytest.raises(InputError, match="expected one length"):
            session.time_batch(wrong, NEW)


def test_batches_that_a_runtime_cannot_hold_are_refused(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(causal, "_CACHE_BYTES", 1000)
    monkeypatch.setattr(onnx, "_CACHE_BYTES", 1000)
    said = {
        "torch": "keys and values of 17 rows take",
        "onnx": "keys and values of 17 rows take",
        "llamacpp": f"a batch of 17, llama.cpp's context has {llamacpp.PARALLEL} sequences here",
        "genai": f"a batch of 17, the runtime {genai.name} answers one sequence at a time",
    }
    with pytest.raises(InputError, match=said[session.name]):
        session.time_batch([[5, 6]] * 17, NEW)


def test_the_tokens_of_a_batch_are_those_of_each_prompt_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = runtime("torch").open_session(folder, 1)
    written: list[list[int]] = []
    take = causal.Rows.take

    def noted(rows: causal.Rows, tokens: torch.Tensor) -> None:
        written.append(tokens.tolist())
        take(rows, tokens)

    monkeypatch.setattr(causal.Rows, "take", noted)
    session.time_batch(BATCH, NEW)
    monkeypatch.undo()
    monkeypatch.setattr(session, "eos_ids", frozenset({0}))
    alone = [session.generate_one(prompt, NEW).ids for prompt in BATCH]
    assert [list(row) for row in zip(*written, strict=True)] == [list(ids[1:]) for ids in alone]


def test_memory_of_a_gpu_is_torchs_own_count_where_there_is_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = runtime("torch").open_session(folder, 1)
    assert session.peak_gpu_bytes() is None
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7 if device.type == "cuda" else 0)

    class Model:
        device = torch.device("cuda")

    monkeypatch.setattr(session, "_model", Model())
    assert session.peak_gpu_bytes() == 7


def test_a_child_process_times_batches_too(folder: Path, tmp_path: Path) -> None:
    with ChildSession("torch", folder, 1, tmp_path) as child:
        assert len(child.time_batch([BATCH[0], tuple(BATCH[1])], NEW)) == NEW
        assert child.peak_gpu_bytes() is None
        with pytest.raises(InputError, match="do not fit"):
            child.time_batch([[5] * 70], NEW)
