"""An artifact in a child process answers as it does in this one, and its death is a finding."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from conversations import ENDING
from models import tiny_model

from lf_export.errors import InputError, StepError
from lf_export.functions.grammars import call_grammar
from lf_export.runtimes import default_runtime, runtime
from lf_export.runtimes.child import ChildSession
from lf_export.runtimes.guides import Guide

PREFIX = [5, 17, 40]
BRANCHES = [[7, 8, 9], [100, 101]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("child") / "tiny")


def test_a_child_answers_as_the_runtime_does_in_this_process(folder: Path, tmp_path: Path) -> None:
    here = runtime("torch").open_session(folder, 1)
    with ChildSession("torch", folder, 1, tmp_path) as child:
        assert child.encode(["What is it?<|im_end|>"]) == [here.encode("What is it?<|im_end|>")]
        ours, ((_, theirs),) = here.generate(PREFIX, BRANCHES, 6), child.generate_groups([(PREFIX, BRANCHES)], 6)
        assert [answer.ids for answer in theirs] == [answer.ids for answer in ours]
        assert [answer.text for answer in theirs] == [answer.text for answer in ours]
        for mine, other in zip(
            here.score(PREFIX, BRANCHES, [1, 0]), child.score(PREFIX, BRANCHES, [1, 0]), strict=True
        ):
            np.testing.assert_allclose(other, mine, atol=1e-5)  # another process may sum in another order
        guides = [[Guide(call_grammar(ENDING), "call"), None]]
        ((_, held),) = child.generate_groups([(PREFIX, BRANCHES)], 96, guides)
        assert [answer.ids for answer in held] == [
            answer.ids for answer in next(here.generate_groups([(PREFIX, BRANCHES)], 96, guides))[1]
        ]
        *_, last = child.stream([*PREFIX, *BRANCHES[0]], 96, guides[0][0])
        assert last.ids == held[0].ids
        assert child.guided == "llguidance"
        assert len(child.generate_one(PREFIX, 4).times) <= 4
        peak, cpu = child.usage()
        assert peak > 10_000_000
        assert cpu > 0
        assert child.eos_ids == here.eos_ids
    assert list(tmp_path.iterdir()) == []


def test_a_child_that_is_killed_is_a_step_error_that_says_how(folder: Path, tmp_path: Path) -> None:
    with ChildSession("torch", folder, 1, tmp_path) as child:
        os.kill(child._process.pid, signal.SIGKILL)
        with pytest.raises(StepError, match="SIGKILL"):
            child.generate_one(PREFIX, 4)


def test_what_cannot_be_loaded_keeps_its_own_error(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "broken")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": "awq", "bits": 4, "version": "gemv"}
    (tmp_path / "broken" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(InputError, match=r"dequantizes gptq and awq \(4 bits, gemm\) only"):
        ChildSession("torch", tmp_path / "broken", 1, tmp_path)


def test_pickles_are_not_loaded(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").rename(tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(InputError, match="pickles"):
        ChildSession("torch", tmp_path / "pickled", 1, tmp_path)


def test_an_unknown_runtime_is_named() -> None:
    with pytest.raises(InputError, match="expected one of: torch, transformers, llamacpp"):
        runtime("vllm")


def test_the_default_runtime_is_the_formats_own(tmp_path: Path) -> None:
    (tmp_path / "artifact").mkdir()
    assert default_runtime(tmp_path / "artifact") == "torch"
    (tmp_path / "artifact" / "model.gguf").touch()
    assert default_runtime(tmp_path / "artifact") == "llamacpp"
    assert default_runtime(tmp_path / "model.gguf") == "llamacpp"
