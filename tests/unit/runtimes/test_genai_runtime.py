"""ONNX Runtime GenAI as a runtime gives what raw ONNX Runtime gives, whatever was asked of it before."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx_folders import Exported

from lf_export.errors import MissingError, StepError
from lf_export.quant import ort
from lf_export.runtimes import default_runtime, genai, runtime
from lf_export.runtimes.child import ChildSession
from lf_export.runtimes.genai import GenaiSession, open_session

Cases = Callable[[str], Exported]
PREFIX = [5, 17, 40, 41, 90]
BRANCHES = [[7, 8, 9], [100], [20, 21, 22, 23, 24, 25], []]
GROUPS = [(PREFIX, BRANCHES), ([50], [[60, 61]]), ([3], []), (PREFIX * 3, [[9], [70, 71, 72, 73]]), ([], [[8, 9]])]
ALL = ("llama-fp32", "llama3-int4", "mistral-fp32", "mistral-dynamo", "qwen2-fp16", "gemma3-fp16", "phi3-int8")


@pytest.fixture(scope="module")
def session(exported: Cases) -> GenaiSession:
    return open_session(exported("llama-fp32").folder, 1)


@pytest.mark.parametrize("name", ALL)
def test_groups_answer_as_on_raw_onnx_runtime(exported: Cases, name: str) -> None:
    folder = exported(name).folder
    ours, raw = open_session(folder, 1), runtime("onnx").open_session(folder, 1)
    # an end token in the middle of answers: the sequence is rewound from there
    raw.eos_ids = ours.eos_ids = ours.eos_ids | {raw.generate_one([50, 60, 61], 4).ids[2]}  # type: ignore[misc]
    found, expected = dict(ours.generate_groups(GROUPS, 30)), dict(raw.generate_groups(GROUPS, 30))
    assert {number: [answer.ids for answer in answers] for number, answers in found.items()} == {
        number: [answer.ids for answer in answers] for number, answers in expected.items()
    }
    assert [answer.text for answer in found[0]] == [answer.text for answer in expected[0]]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("prefix", [PREFIX, PREFIX[:1]])
def test_scores_are_those_of_raw_onnx_runtime(exported: Cases, name: str, prefix: list[int]) -> None:
    starts = [0, 1, 3, 0]
    folder = exported(name).folder
    found = open_session(folder, 1).score(prefix, BRANCHES, starts)
    expected = runtime("onnx").open_session(folder, 1).score(prefix, BRANCHES, starts)
    assert [rows.shape for rows in found] == [rows.shape for rows in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=2e-5)  # the same kernels; sums may be in another order


def test_scores_after_answers_are_what_they_were_before(session: GenaiSession) -> None:
    (before,) = session.score(PREFIX, [[7, 8, 9]], [0])
    session.generate([9, 9, 9], [[1], [3]], 20)
    (after,) = session.score(PREFIX, [[7, 8, 9]], [0])
    np.testing.assert_array_equal(after, before)


def test_long_prompts_are_prefilled_in_parts(session: GenaiSession, monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = session.score([], [PREFIX * 8], [1])
    monkeypatch.setattr(genai, "_CHUNK", 7)
    (parts,) = session.score([], [PREFIX * 8], [1])
    np.testing.assert_allclose(parts, whole, atol=2e-5)
    (last,) = session.score([], [PREFIX * 8], [30])
    np.testing.assert_allclose(last, whole[29:], atol=2e-5)


def test_the_folders_own_search_changes_nothing(exported: Cases, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported("llama-fp32").folder, tmp_path / "artifact"))
    expected = open_session(folder, 1).generate_one(PREFIX, 12).ids
    path = folder / "genai_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["search"] |= {"do_sample": True, "temperature": 5.0, "repetition_penalty": 9.0, "min_length": 30}
    path.write_text(json.dumps(config), encoding="utf-8")
    assert open_session(folder, 1).generate_one(PREFIX, 12).ids == expected


def test_each_answer_has_a_time_for_each_token_and_waits_for_no_other(session: GenaiSession) -> None:
    answers = session.generate(PREFIX, [[7], [8], [9]], 24)
    for answer in answers:
        assert len(answer.times) == len(answer.ids) == 24
        assert list(answer.times) == sorted(answer.times)
        assert answer.times[0] > 0
    assert answers[2].times[0] < answers[0].times[-1] + answers[1].times[-1]


def test_a_graph_for_cuda_is_refused_where_the_provider_is_not_there(exported: Cases) -> None:
    with pytest.raises(MissingError, match=r"for the provider cuda \(CUDAExecutionProvider\), which .* not have") as e:
        open_session(exported("qwen3-cuda").folder, 1)
    assert e.value.hint is not None
    assert "lf-export[onnx-gpu]" in e.value.hint


def test_both_wheels_at_once_are_refused(exported: Cases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "installed_wheels", lambda *_: ["onnxruntime", "onnxruntime-gpu"])
    ort.onnxruntime.cache_clear()
    try:
        with pytest.raises(MissingError, match="onnxruntime and onnxruntime-gpu are both installed"):
            open_session(exported("llama-fp32").folder, 1)
    finally:
        ort.onnxruntime.cache_clear()


def test_a_graph_without_its_weights_does_not_load(exported: Cases, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported("llama-fp32").folder, tmp_path / "artifact"))
    (folder / "model.onnx.data").unlink()
    with pytest.raises(StepError, match="ONNX Runtime GenAI cannot load it"):
        open_session(folder, 1)


def test_the_runtime_is_asked_for_by_name_and_is_nobodys_default(exported: Cases) -> None:
    folder = exported("llama-fp32").folder
    assert runtime("genai").accepts(folder)
    assert not runtime("genai").accepts(exported("llama-fp32").model)
    assert default_runtime(folder) == "onnx"


def test_it_answers_in_a_child_process(exported: Cases, session: GenaiSession, tmp_path: Path) -> None:
    with ChildSession("genai", exported("llama-fp32").folder, 1, tmp_path) as child:
        assert child.name == "genai"
        assert child.representative
        assert child.generate_one(PREFIX, 8).ids == session.generate_one(PREFIX, 8).ids
        np.testing.assert_array_equal(child.score(PREFIX, [[7, 8]], [0])[0], session.score(PREFIX, [[7, 8]], [0])[0])
