from collections.abc import Iterator
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest

from lf_export.checkpoint.index import open_checkpoint
from lf_export.errors import InputError, MissingError
from lf_export.formats.gguf import FORMAT, GgufOptions
from lf_export.quant import ggml
from lf_export.runtimes import llamacpp, llamacpp_native
from lf_export.runtimes.llamacpp import LlamaCppSession, accepts, open_session

PROMPT = "<|im_start|>user\nWhat is the weather in Paris?<|im_end|>\n<|im_start|>assistant\n"
ANSWERS = ['{"function_call":{"name":"get_weather"}}<|im_end|>', "It is sunny and warm.", "x"]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("llamacpp")
    folder = models.tiny_model(root / "model", max_position_embeddings=256)
    out = root / "artifact"
    out.mkdir()
    FORMAT.open(open_checkpoint(folder), out, GgufOptions(types=("F32",), name="m"), "digest").finish()
    return out


@pytest.fixture(scope="module")
def session(artifact: Path) -> Iterator[LlamaCppSession]:
    session = open_session(artifact, threads=1)
    yield session
    session.close()


def test_a_session_says_what_it_is(session: LlamaCppSession) -> None:
    assert (session.name, session.representative, session.vocab_size) == ("llamacpp", True, 320)
    assert session.eos_ids >= {2}
    assert session.load_seconds > 0


def test_scores_of_many_branches_are_those_of_one_at_a_time(session: LlamaCppSession) -> None:
    prefix, branches = session.encode(PROMPT), [session.encode(text) for text in ANSWERS * 4]  # more than one group
    starts = [index % len(branch) for index, branch in enumerate(branches)]
    together = session.score(prefix, branches, starts)
    for branch, start, found in zip(branches, starts, together, strict=True):
        assert found.shape == (len(branch) - start, 320)
        assert found.dtype == np.float32
        for row in range(start, len(branch)):
            tokens = prefix + branch[: row + 1]
            alone = session.score([], [tokens], [len(tokens) - 1])[0]
            # A batch adds in another order, partly in half precision; another token's logits differ by ones.
            np.testing.assert_allclose(found[row - start], alone[0], atol=0.01)


def test_the_same_question_has_the_same_bits(session: LlamaCppSession) -> None:
    prefix, branches = session.encode(PROMPT), [session.encode(text) for text in ANSWERS]
    first = session.score(prefix, branches, [0, 0, 0])
    session.generate_one(session.encode("something else"), 3)
    for one, two in zip(first, session.score(prefix, branches, [0, 0, 0]), strict=True):
        assert np.array_equal(one, two)


def test_answers_over_a_shared_prefix_are_those_alone(session: LlamaCppSession) -> None:
    prefix, branches = session.encode(PROMPT), [session.encode(text) for text in ANSWERS]
    together = session.generate(prefix, [*branches, []], 8)
    for branch, answer in zip([*branches, []], together, strict=True):
        assert answer.ids == session.generate_one(prefix + branch, 8).ids
        assert answer.ids[0] == session.score(prefix, [[*branch, 0]], [len(branch)])[0][0].argmax()


@pytest.mark.parametrize(("sequences", "cells"), [(2, 4096), (5, 256), (16, 4096)])
def test_groups_under_way_together_answer_as_if_alone(
    session: LlamaCppSession, monkeypatch: pytest.MonkeyPatch, sequences: int, cells: int
) -> None:
    monkeypatch.setattr(llamacpp, "PARALLEL", sequences)
    monkeypatch.setattr(llamacpp, "_CELLS", cells)
    prefix, branches = session.encode(PROMPT), [session.encode(text) for text in ANSWERS]
    groups = [
        (prefix, branches[:2]),
        ([], [prefix]),
        (prefix[:3], []),
        (branches[1], branches[:1]),
        ([7], branches[1:]),
    ]
    found = dict(session.generate_groups(groups, 20))
    assert {number: [answer.ids for answer in answers] for number, answers in found.items()} == {
        number: [session.generate_one([*shared, *branch], 20).ids for branch in rest]
        for number, (shared, rest) in enumerate(groups)
    }


def test_more_branches_than_sequences_are_answered_in_turn(session: LlamaCppSession) -> None:
    prefix, branches = session.encode(PROMPT), [[number] for number in range(20, 40)]
    found = session.generate(prefix, branches, 3)
    assert [answer.ids for answer in found] == [session.generate_one([*prefix, *each], 3).ids for each in branches]
    with pytest.raises(InputError, match="20 branches of one prefix, expected at most 16"):
        list(session.generate_groups([(prefix, branches)], 3))


def test_each_token_has_its_time(session: LlamaCppSession) -> None:
    answer = session.generate_one(session.encode(PROMPT), 6)
    assert len(answer.times) == len(answer.ids)
    assert list(answer.times) == sorted(answer.times)
    assert answer.times[0] > 0


def test_an_answer_stops_at_an_end_token_and_leaves_it_out_of_the_text(
    session: LlamaCppSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = session.encode(PROMPT)
    free = session.generate_one(prompt, 6)
    end = free.ids[2]
    monkeypatch.setattr(session, "eos_ids", frozenset({end}))
    stopped = session.generate_one(prompt, 6)
    length = free.ids.index(end) + 1
    assert stopped.ids == free.ids[:length]
    assert stopped.text == session.decode(free.ids[: length - 1])


def test_an_answer_is_cut_where_the_context_ends(session: LlamaCppSession) -> None:
    answer = session.generate_one([5] * 250, 50)
    assert len(answer.ids) <= 6


@pytest.mark.parametrize("length", [257, 300])
def test_a_text_longer_than_the_context_is_refused(session: LlamaCppSession, length: int) -> None:
    with pytest.raises(InputError, match=f"{length} tokens are asked for, .* has a context of 256"):
        session.score([5] * 10, [[6] * (length - 10)], [3])


def test_nothing_cannot_be_continued(session: LlamaCppSession) -> None:
    with pytest.raises(InputError, match="empty prompt"):
        session.generate([], [[]], 3)
    with pytest.raises(InputError, match="from its first token"):
        session.score([], [[1, 2]], [0])


def test_special_tokens_are_recognised_and_none_is_added(session: LlamaCppSession) -> None:
    assert session.encode("<|im_start|><|im_end|>") == [1, 2]
    assert session.encode("") == []
    assert session.decode([1, 2]) == "<|im_start|><|im_end|>"


def test_a_long_text_survives_the_round_trip(session: LlamaCppSession) -> None:
    text = "Ünïcödé 漢字 🙂 " * 200
    assert session.decode(session.encode(text)) == text


def test_half_a_character_becomes_the_replacement_sign(session: LlamaCppSession) -> None:
    assert session.decode(session.encode("é")[:1]) == "\ufffd"


def test_a_gguf_is_accepted_and_an_importance_matrix_alone_is_not(artifact: Path, tmp_path: Path) -> None:
    assert accepts(artifact)
    assert accepts(artifact / "m-F32.gguf")
    assert not accepts(tmp_path)
    (tmp_path / "imatrix.gguf").write_bytes(b"GGUF")
    (tmp_path / "notes.gguf").write_bytes(b"not one")
    assert not accepts(tmp_path)
    with pytest.raises(InputError, match="no GGUF model there"):
        open_session(tmp_path, threads=1)


def test_several_models_in_a_folder_are_named(artifact: Path, tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes((artifact / "m-F32.gguf").read_bytes())
    with pytest.raises(InputError, match=r"2 GGUF models there: a\.gguf, b\.gguf"):
        open_session(tmp_path, threads=1)


def test_a_damaged_file_is_refused_with_what_llama_cpp_says(artifact: Path, tmp_path: Path) -> None:
    data = (artifact / "m-F32.gguf").read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"cut\.gguf: llama.cpp cannot load it: .*not within the file bounds"):
        open_session(path, threads=1)


def test_a_struct_that_moved_is_noticed_before_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(llamacpp_native._CONTEXT_DEFAULTS, "n_batch", 1024)
    llamacpp_native.llama.cache_clear()
    try:
        with pytest.raises(MissingError, match=r"ContextParams\.n_batch of xllamacpp is 2048, expected 1024"):
            llamacpp_native.llama()
    finally:
        llamacpp_native.llama.cache_clear()


@pytest.mark.parametrize("found", [None, "2026.1.1"])
def test_another_xllamacpp_is_refused_with_the_install_command(monkeypatch: pytest.MonkeyPatch, found: Any) -> None:
    if found is None:
        monkeypatch.setattr(ggml.util, "find_spec", lambda _name: None)
    else:
        monkeypatch.setattr(ggml.metadata, "version", lambda _name: found)
    ggml.library.cache_clear()
    try:
        with pytest.raises(MissingError, match="xllamacpp") as caught:
            ggml.library()
    finally:
        ggml.library.cache_clear()
    assert caught.value.hint is not None
    assert "xllamacpp==2026.10.11549" in caught.value.hint


def test_nothing_is_printed(artifact: Path, capfd: pytest.CaptureFixture[str]) -> None:
    session = open_session(artifact, threads=1)
    session.generate_one([5, 6, 7], 2)
    session.close()
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
