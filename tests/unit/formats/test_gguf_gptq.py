"""GGUF files with error feedback: what is said of each linear, what is shared, and what stays llama.cpp's own."""

import json
from pathlib import Path
from typing import Any

import gguf_folders
import models
import numpy as np
import pytest
import torch

from lf_export.checkpoint.index import open_checkpoint
from lf_export.formats import gguf_gptq
from lf_export.formats.gguf_writer import interleave
from lf_export.quant.ggml import TYPES
from lf_export.quant.ggml_blocks import decode


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf-gptq") / "m"
    return models.tiny_model(folder, hidden_size=128, intermediate_size=256, head_dim=32)


@pytest.fixture(scope="module")
def written(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("out")
    return out, gguf_folders.write(model, out, "Q4_0", "Q4_K_M", "Q8_0", "F16")


def test_each_linear_says_how_it_was_rounded_and_what_it_cost(written: tuple[Path, dict[str, Any]]) -> None:
    _, facts = written
    assert facts["method"] == "gptq"
    json.dumps(facts)
    file = facts["files"]["m-Q4_0.gguf"]
    assert len(file["linears"]) == 14
    assert file["error"] < file["imatrix_error"]
    up = file["linears"]["blk.1.ffn_up.weight"]
    assert (up["type"], up["method"], up["judged_on"], up["damp_percent"]) == ("Q4_0", "gptq", "held-out", 0.01)
    assert up["error"] < up["imatrix_error"]
    for name, linear in file["linears"].items():
        assert (name in file["fallbacks"]) == (linear["method"] == "imatrix") == ("reason" in linear)
    assert "linears" not in facts["files"]["m-F16.gguf"]
    assert "linears" not in facts["files"]["m-Q8_0.gguf"]


def test_only_the_codes_differ_from_the_file_of_the_importance_matrix(
    model: Path, written: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    facts = gguf_folders.write(model, tmp_path, "Q4_0", "Q4_K_M", method="imatrix")
    assert "linears" not in facts["files"]["m-Q4_0.gguf"]
    changed = 0
    for file in ("m-Q4_0.gguf", "m-Q4_K_M.gguf"):
        ours, theirs = gguf_folders.tensors_of(written[0] / file), gguf_folders.tensors_of(tmp_path / file)
        assert {name: kind for name, (kind, _) in ours.items()} == {name: kind for name, (kind, _) in theirs.items()}
        for name, (kind, data) in ours.items():
            if name in written[1]["files"][file]["linears"]:
                found, own = decode(data, TYPES[kind]), decode(theirs[name][1], TYPES[kind])
                assert np.array_equal(found.scales, own.scales)
                method = written[1]["files"][file]["linears"][name]["method"]
                assert np.array_equal(found.codes, own.codes) == (method == "imatrix")
                changed += method == "gptq"
            else:
                assert np.array_equal(data, theirs[name][1])
    assert changed > 14


def test_rows_of_q_and_k_are_interleaved_before_they_are_rounded(
    model: Path, written: tuple[Path, dict[str, Any]]
) -> None:
    W = open_checkpoint(model).read("model.layers.1.self_attn.q_proj.weight", dtype=torch.float32)
    kind, data = gguf_folders.tensors_of(written[0] / "m-Q4_0.gguf")["blk.1.attn_q.weight"]
    values = torch.from_numpy(decode(data, TYPES[kind]).values())
    wanted = interleave(W, 32)
    assert float((values - wanted).norm() / wanted.norm()) < 0.2
    assert float((values - W).norm() / W.norm()) > 1


def test_a_file_has_the_same_bytes_alone_and_with_others(
    model: Path, written: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    gguf_folders.write(model, tmp_path, "Q4_K_M")
    assert (tmp_path / "m-Q4_K_M.gguf").read_bytes() == (written[0] / "m-Q4_K_M.gguf").read_bytes()


def test_a_type_that_two_files_share_is_solved_once(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    solved = []
    real = gguf_gptq.Compensator.solve

    def counted(self: Any, weights: Any, kind: Any, importance: Any) -> Any:
        solved.extend((name, kind.name) for name in weights)
        return real(self, weights, kind, importance)

    monkeypatch.setattr(gguf_gptq.Compensator, "solve", counted)
    gguf_folders.write(model, tmp_path, "Q4_K_M", "Q4_K_S", "Q5_0")
    assert len(solved) == len(set(solved))


def test_codebooks_of_vectors_are_left_to_llama_cpp(tmp_path: Path) -> None:
    wide = models.tiny_model(tmp_path / "wide", hidden_size=256, intermediate_size=256, head_dim=64)
    facts = gguf_folders.write(wide, tmp_path / "out", "IQ3_S")
    assert facts["files"]["wide-IQ3_S.gguf"]["tensors"]["IQ3_S"] > 10
    assert not facts["files"]["wide-IQ3_S.gguf"].get("linears")
