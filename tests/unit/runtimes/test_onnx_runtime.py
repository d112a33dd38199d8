"""The runtime on raw ONNX Runtime gives what the torch runtime gives, one sequence at a time or many together."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx_folders import Exported

from lf_export.errors import InputError, StepError
from lf_export.runtimes import default_runtime, onnx, onnx_graph, runtime
from lf_export.runtimes.base import Session
from lf_export.runtimes.onnx import OnnxSession, open_session

Cases = Callable[[str], Exported]
PREFIX = [5, 17, 40, 41, 90]
BRANCHES = [[7, 8, 9], [100], [20, 21, 22, 23, 24, 25]]
GROUPS = [(PREFIX, BRANCHES), ([50], [[60, 61]]), ([3], []), (PREFIX * 3, [[9], [70, 71, 72, 73]]), ([], [[8, 9]])]
EXACT = ("llama-fp32", "mistral-fp32", "mistral-dynamo")


@pytest.fixture(scope="module")
def session(exported: Cases) -> OnnxSession:
    return open_session(exported("llama-fp32").folder, 1)


def _torch(case: Exported) -> Session:
    return runtime("torch").open_session(case.model, 1)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("most", [1, 3, 32])
def test_groups_of_different_lengths_answer_as_the_plain_model_does_alone(
    exported: Cases, monkeypatch: pytest.MonkeyPatch, name: str, most: int
) -> None:
    monkeypatch.setattr(onnx, "_MOST_ROWS", most)  # rows of later groups join while others are under way
    session = open_session(exported(name).folder, 1)
    found = dict(session.generate_groups(GROUPS, 30))
    assert {number: [list(answer.ids) for answer in answers] for number, answers in found.items()} == {
        number: [_greedy(exported(name).model, [*prefix, *branch], 30, session.eos_ids) for branch in branches]
        for number, (prefix, branches) in enumerate(GROUPS)
    }


@torch.inference_mode()
def _greedy(folder: Path, prompt: list[int], steps: int, ends: frozenset[int]) -> list[int]:
    """The plain model without a cache, which no window can confuse."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = list(prompt)
    for _ in range(steps):
        ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        if ids[-1] in ends:
            break
    return ids[len(prompt) :]


@pytest.mark.parametrize("name", ["llama3-int4", "qwen2-int4", "qwen2-fp16", "gemma3-fp16", "qwen3-cuda", "phi3-int8"])
def test_batched_answers_equal_answers_alone(exported: Cases, name: str) -> None:
    session = open_session(exported(name).folder, 1)
    together = session.generate(PREFIX, BRANCHES, 40)
    alone = [session.generate_one(PREFIX + branch, 40) for branch in BRANCHES]
    # int8 and fp16 round a row the same whatever stands beside it
    assert [answer.ids for answer in together] == [answer.ids for answer in alone]


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("prefix", [PREFIX, PREFIX[:1]])
def test_scores_are_those_of_the_torch_runtime(exported: Cases, name: str, prefix: list[int]) -> None:
    starts = [0, 1, 3]
    found = open_session(exported(name).folder, 1).score(prefix, BRANCHES, starts)
    expected = _torch(exported(name)).score(prefix, BRANCHES, starts)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)  # float32 sums in another order


def test_long_prompts_are_prefilled_in_parts(session: OnnxSession, monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = session.score([], [PREFIX * 8], [1])
    monkeypatch.setattr(onnx_graph, "_CHUNK", 7)
    (parts,) = session.score([], [PREFIX * 8], [1])
    np.testing.assert_allclose(parts, whole, atol=2e-5)
    (last,) = session.score([], [PREFIX * 8], [30])
    np.testing.assert_allclose(last, whole[29:], atol=2e-5)


def test_a_group_comes_as_soon_as_it_ends(exported: Cases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "_MOST_ROWS", 3)
    session = open_session(exported("llama-fp32").folder, 1)
    session.eos_ids = frozenset({session.generate_one([50, 60], 4).ids[1]})
    groups = [([5, 6], [[7, 8]]), ([50], [[60]]), ([50], [[60]]), ([50], [[60]])]
    assert len(session.generate_one([5, 6, 7, 8], 30).ids) > 8, "the first answer must be the longest for this test"
    assert [number for number, _ in session.generate_groups(groups, 30)] == [1, 2, 3, 0]


def test_times_grow_and_an_end_token_is_not_in_the_text(session: OnnxSession) -> None:
    answer = session.generate_one([5, 6, 7], 6)
    assert len(answer.times) == len(answer.ids) == 6
    assert list(answer.times) == sorted(answer.times)
    assert answer.times[0] > 0
    assert answer.text == session.decode(answer.ids)


@pytest.mark.parametrize(("name", "representative"), [("llama-fp32", True), ("qwen3-cuda", False)])
def test_only_a_graph_for_the_cpu_says_something_about_speed(exported: Cases, name: str, representative: bool) -> None:
    assert open_session(exported(name).folder, 1).representative is representative


def test_the_runtime_is_found_by_its_name_and_by_the_folder(exported: Cases) -> None:
    folder = exported("llama-fp32").folder
    assert default_runtime(folder) == "onnx"
    assert runtime("onnx").accepts(folder)
    assert not runtime("onnx").accepts(exported("llama-fp32").model)


@pytest.mark.parametrize("module", ["onnx", "genai", "llamacpp"])
def test_torch_is_not_in_the_memory_of_a_runtime_that_does_without(module: str) -> None:
    code = f"import sys, lf_export.runtimes.worker, lf_export.runtimes.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def broken(exported: Cases, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported("llama-fp32").folder, tmp_path / "artifact"))


def test_a_config_that_is_none_is_named(broken: Path) -> None:
    (broken / "genai_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match=r"genai_config\.json: not the config of an ONNX Runtime GenAI decoder"):
        open_session(broken, 1)


def test_a_graph_outside_of_the_folder_is_refused(broken: Path) -> None:
    path = broken / "genai_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["model"]["decoder"]["filename"] = "../model.onnx"
    path.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(InputError, match="outside of the folder"):
        open_session(broken, 1)


def test_a_graph_without_its_weights_does_not_load(broken: Path) -> None:
    (broken / "model.onnx.data").unlink()
    with pytest.raises(StepError, match="ONNX Runtime cannot load it"):
        open_session(broken, 1)


def test_a_graph_with_more_layers_than_the_config_says_is_refused(broken: Path) -> None:
    path = broken / "genai_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["model"]["decoder"]["num_hidden_layers"] = 1
    path.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(InputError, match="not a decoder whose keys and values this runtime can hold"):
        open_session(broken, 1)
