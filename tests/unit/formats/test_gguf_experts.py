"""Mixtures of experts in GGUF files: where their matrices lie, which types they take, and what is refused."""

import json
from pathlib import Path
from typing import Any

import gguf_folders
import models
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lf_export.checkpoint.index import open_checkpoint
from lf_export.errors import InputError
from lf_export.formats import gguf_writer
from lf_export.formats.gguf import FORMAT, GgufOptions
from lf_export.formats.gguf_arch import plan_tensors
from lf_export.formats.gguf_plan import plan_file
from lf_export.formats.gguf_types import SCHEMES, ModelShape, tensor_type
from lf_export.formats.pace import Pace

BLOCK = {"mixtral": "block_sparse_moe", "qwen3_moe": "mlp"}
LINEARS = {"mixtral": ("w1", "w3", "w2"), "qwen3_moe": ("gate_proj", "up_proj", "down_proj")}
PARTS = ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")


@pytest.fixture(scope="module", params=BLOCK)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.tiny_model(tmp_path_factory.mktemp("gguf-experts") / "m", family, tie_word_embeddings=False)


def write(model: Path, out: Path, *types: str, **options: Any) -> dict[str, Any]:
    out.mkdir(exist_ok=True)
    options = {"method": "rtn", "name": "m"} | options
    return FORMAT.open(open_checkpoint(model), out, GgufOptions(types=types, **options), "abc").finish()


def changed(model: Path, folder: Path, config: dict[str, Any] | None = None, **tensors: torch.Tensor | None) -> Path:
    """A copy with another config, and with tensors replaced, or removed by None."""
    folder.mkdir()
    held = json.loads((model / "config.json").read_text(encoding="utf-8")) | (config or {})
    (folder / "config.json").write_text(json.dumps(held), encoding="utf-8")
    (folder / "tokenizer.json").write_bytes((model / "tokenizer.json").read_bytes())
    kept = {name: value for name, value in load_file(model / "model.safetensors").items() if name not in tensors}
    added = {name: value for name, value in tensors.items() if value is not None}
    save_file(kept | added, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_the_matrices_of_a_layers_experts_follow_each_other_in_one_tensor(
    family: str, model: Path, tmp_path: Path
) -> None:
    write(model, tmp_path, "F32")
    source, files = load_file(model / "model.safetensors"), gguf_folders.tensors_of(tmp_path / "m-F32.gguf")
    for layer in range(2):
        for part, linear in zip(PARTS, LINEARS[family], strict=True):
            data = files[f"blk.{layer}.{part}.weight"][1]
            assert len(data) == 4
            for number, matrix in enumerate(data):
                name = f"model.layers.{layer}.{BLOCK[family]}.experts.{number}.{linear}.weight"
                assert np.array_equal(matrix, source[name].numpy())
        router = source[f"model.layers.{layer}.{BLOCK[family]}.gate.weight"]
        assert np.array_equal(files[f"blk.{layer}.ffn_gate_inp.weight"][1], router.numpy())
    assert not any(part in name for name in files for part in ("ffn_gate.", "ffn_up.", "ffn_down.", "experts"))


def test_the_metadata_says_how_many_experts_there_are(family: str, model: Path, tmp_path: Path) -> None:
    write(model, tmp_path, "F16")
    fields = gguf_folders.fields_of(tmp_path / "m-F16.gguf")
    name = {"mixtral": "llama", "qwen3_moe": "qwen3moe"}[family]
    assert fields["general.architecture"] == name
    assert (fields[f"{name}.expert_count"], fields[f"{name}.expert_used_count"]) == (4, 2)
    assert fields.get(f"{name}.expert_feed_forward_length") == (None if family == "mixtral" else 96)
    assert fields["general.size_label"].startswith("4x")


@pytest.mark.parametrize("scheme", ["F16", "BF16", "Q8_0", "Q4_0"])
def test_a_router_is_float_in_every_file(model: Path, tmp_path: Path, scheme: str) -> None:
    write(model, tmp_path, scheme)
    files = gguf_folders.tensors_of(tmp_path / f"m-{scheme}.gguf")
    assert {files[f"blk.{layer}.ffn_gate_inp.weight"][0] for layer in range(2)} == {"F32"}
    assert {files[f"blk.1.{part}.weight"][0] for part in PARTS} == {scheme}


def test_each_expert_is_read_by_itself(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    real = gguf_writer.read
    monkeypatch.setattr(
        gguf_writer,
        "read",
        lambda info, *rest: sizes.append(info.numel) or real(info, *rest),  # type: ignore[func-returns-value]
    )
    write(model, tmp_path, "Q4_0")
    assert max(sizes) == 320 * 64  # the embedding; an expert has 8,192 at the most, four of them 32,768
    assert len(sizes) == len(open_checkpoint(model).tensors)


def test_blocks_and_threads_give_the_bytes_of_the_whole(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(model, tmp_path / "whole", "Q5_1")
    monkeypatch.setattr("lf_export.formats.gguf_writer._BLOCK", 64 * 40)
    write(model, tmp_path / "blocks", "Q5_1", threads=2)
    assert (tmp_path / "whole/m-Q5_1.gguf").read_bytes() == (tmp_path / "blocks/m-Q5_1.gguf").read_bytes()


def test_size_and_time_are_known_from_shapes_alone(model: Path, tmp_path: Path) -> None:
    options = GgufOptions(types=("Q4_0",), method="rtn", name="m")
    write(model, tmp_path, "Q4_0")
    # the vocabulary is guessed from tokenizer.json, the tensors are exact
    assert FORMAT.size(open_checkpoint(model), options) == pytest.approx(
        (tmp_path / "m-Q4_0.gguf").stat().st_size, rel=0.1
    )

    class Counting(Pace):
        def rounding(self, key: Any, quantize: Any, weights: float) -> float:  # noqa: ARG002
            return weights

    per_layer = sum(
        info.numel
        for name, info in open_checkpoint(model).tensors.items()
        if name.startswith("model.layers.") and len(info.shape) == 2 and not name.endswith(".gate.weight")
    )
    embeddings = 2 * 320 * 64
    assert FORMAT.seconds(open_checkpoint(model), options, Counting(1)) == per_layer + embeddings


def test_files_in_parts_hold_the_same_tensors(model: Path, tmp_path: Path) -> None:
    write(model, tmp_path / "whole", "F16")
    write(model, tmp_path / "parts", "F16", split_max_size=100_000)
    parts = sorted((tmp_path / "parts").iterdir())
    assert len(parts) > 2
    found = {name: value for part in parts for name, value in gguf_folders.tensors_of(part).items()}
    for name, (kind, data) in gguf_folders.tensors_of(tmp_path / "whole/m-F16.gguf").items():
        assert found[name][0] == kind
        assert np.array_equal(found[name][1], data)


def types(model: Path, overrides: Any) -> dict[str, str]:
    checkpoint = open_checkpoint(model)
    options = GgufOptions(overrides=overrides)
    planned = plan_file(plan_tensors(checkpoint), SCHEMES["Q4_0"], checkpoint, "imatrix", options.overrides)
    return {each.tensor.name.removesuffix(".weight"): each.kind.name for each in planned}


def test_patterns_name_stacked_tensors_by_llama_cpps_name_or_by_all_their_matrices(family: str, model: Path) -> None:
    down = LINEARS[family][2]
    for pattern in ("*.ffn_down_exps", f"*.experts.*.{down}", f"model.layers.?.*.experts.?.{down}.weight"):
        found = types(model, {pattern: {"type": "Q8_0"}})
        eight = {name for name, kind in found.items() if kind == "Q8_0" and name != "output"}
        assert eight == {"blk.0.ffn_down_exps", "blk.1.ffn_down_exps"}


def test_a_pattern_that_names_some_of_the_experts_is_refused(family: str, model: Path) -> None:
    with pytest.raises(InputError, match=r"matches 1 of the 4 experts in blk\.0\.ffn_down_exps\.weight") as caught:
        types(model, {f"*.0.*.experts.3.{LINEARS[family][2]}": {"type": "Q8_0"}})
    assert caught.value.hint == "take blk.0.ffn_down_exps"


def test_no_pattern_reaches_a_router(model: Path) -> None:
    assert types(model, {"blk.*": {"type": "Q8_0"}})["blk.0.ffn_gate_inp"] == "F32"
    with pytest.raises(InputError, match="matches no matrix"):
        types(model, {"*.ffn_gate_inp": {"type": "Q8_0"}})


def test_eight_experts_have_rules_of_their_own() -> None:
    def kinds(scheme: str, experts: int) -> list[str]:
        shape = ModelShape("llama", layers=16, heads=8, kv_heads=4, tied=False, experts=experts)
        parts = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_down_exps")
        named = [f"blk.4.{part}.weight" for part in parts]
        return [tensor_type(name, (256, 256), SCHEMES[scheme], shape, imatrix=True).name for name in named]

    assert kinds("Q4_K_M", 8) == ["Q4_K", "Q8_0", "Q8_0", "Q5_K", "Q6_K"]
    assert kinds("Q4_K_M", 7) == ["Q4_K", "Q4_K", "Q6_K", "Q4_K", "Q6_K"]
    assert kinds("IQ2_M", 8) == ["IQ2_S", "Q4_K", "Q4_K", "Q5_K", "IQ2_S"]
    assert kinds("IQ2_M", 4) == ["IQ2_S", "IQ2_S", "Q4_K", "IQ3_S", "IQ2_S"]
    assert kinds("IQ2_M", 3) == ["IQ2_S", "IQ2_S", "IQ3_S", "IQ3_S", "IQ2_S"]


def test_matrices_that_are_missing_or_of_another_shape_are_named(family: str, model: Path, tmp_path: Path) -> None:
    gate, up, _ = (f"model.layers.1.{BLOCK[family]}.experts.2.{name}.weight" for name in LINEARS[family])
    folder = changed(model, tmp_path / "bad", **{gate: None, up: torch.ones(3, 64)})
    with pytest.raises(InputError) as caught:
        write(folder, tmp_path / "out", "F16")
    lines = caught.value.message.splitlines()
    assert any(f"the tensor {gate} is missing" in line for line in lines)
    assert any(f"{up} is [3, 64], expert 0's is" in line for line in lines)


def test_experts_that_are_one_tensor_on_disk_are_refused(family: str, model: Path, tmp_path: Path) -> None:
    gate, up, down = LINEARS[family]
    prefix = f"model.layers.0.{BLOCK[family]}.experts"
    gone = {f"{prefix}.{number}.{name}.weight": None for number in range(4) for name in (gate, up, down)}
    fused = {"model.layers.0.mlp.experts.gate_up_proj": torch.ones(4, 256, 64)}
    with pytest.raises(InputError) as caught:
        write(changed(model, tmp_path / "bad", **gone, **fused), tmp_path / "out", "F16")
    assert "the tensor model.layers.0.mlp.experts.gate_up_proj holds all experts of a layer" in caught.value.message
    assert f"{prefix}.0.{gate}.weight is missing and 3 more" in caught.value.message


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"mlp_only_layers": [1]}, r"layers without experts \(1\), llama.cpp expects experts in every layer"),
        ({"decoder_sparse_step": 2}, r"layers without experts \(0\)"),
        ({"norm_topk_prob": False}, "norm_topk_prob is false"),
        ({"num_local_experts": 600, "num_experts": 600}, "600 experts, llama.cpp holds 512 at the most"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
    ],
)
def test_what_llama_cpp_computes_otherwise_of_experts_is_refused(
    tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    model = models.tiny_model(tmp_path / "m", "qwen3_moe")
    with pytest.raises(InputError, match=message):
        write(changed(model, tmp_path / "bad", config), tmp_path / "out", "F16")
