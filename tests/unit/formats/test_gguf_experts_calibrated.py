"""Calibrated GGUF files of mixtures of experts: an importance and an H for each, and what serves the starved."""

import json
import struct
from pathlib import Path
from typing import Any

import gguf
import gguf_expert_folders
import gguf_folders
import models
import numpy as np
import pytest
import resumed
import torch
from safetensors.torch import load_file, save_file
from said import Said
from walk_data import random_data

from lf_export import progress
from lf_export.checkpoint.index import open_checkpoint
from lf_export.errors import InputError, StepError
from lf_export.formats.gguf import FORMAT, GgufOptions
from lf_export.formats.gguf_imatrix import Imatrix
from lf_export.formats.gguf_imatrix_read import read_imatrix
from lf_export.quant.ggml import TYPES, quantize
from lf_export.quant.ggml_gptq import Compensator
from lf_export.quant.moments import Moments
from lf_export.walk.stream import walk
from lf_export.walk.view import LayerView

BLOCK = {"mixtral": "block_sparse_moe", "qwen3_moe": "mlp"}
LINEARS = {"mixtral": ("w1", "w3", "w2"), "qwen3_moe": ("gate_proj", "up_proj", "down_proj")}
PARTS = ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")
DATA = random_data([40, 30, 50, 60, 20, 45, 38, 70] * 4)


@pytest.fixture(scope="module", params=BLOCK)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.tiny_model(tmp_path_factory.mktemp("gguf-experts") / "m", family, dtype=torch.bfloat16)


@pytest.fixture(scope="module")
def starved(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.starved_model(tmp_path_factory.mktemp("gguf-starved") / "m", family)


def write(folder: Path, out: Path, *types: str, visitors: tuple[Any, ...] = (), **options: Any) -> dict[str, Any]:
    out.mkdir()
    checkpoint = open_checkpoint(folder)
    target = FORMAT.open(checkpoint, out, GgufOptions(types=types or ("Q4_0",), name="m", **options), "abc")
    walk(checkpoint, DATA, [*visitors, target], dtype=torch.float32)
    return target.finish()


class Views:
    """A visitor that keeps what it is shown of the moments."""

    needs_moments = True

    def __init__(self) -> None:
        self.views: list[LayerView] = []

    def layer(self, view: LayerView) -> None:
        """Keep them."""
        weights = {name: view.weights[name].clone() for name in view.weights}
        self.views.append(
            LayerView(view.index, view.prefix, weights, view.groups, view.moments, view.heldout, None, view.pools)
        )


@pytest.fixture(scope="module")
def written(model: Path) -> tuple[Path, dict[str, Any], list[LayerView]]:
    seen = Views()
    out = model.parent / "gptq"
    return out, write(model, out, "Q4_0", "F16", visitors=(seen,)), seen.views


def linear(family: str, part: str, number: int) -> str:
    return f"{BLOCK[family]}.experts.{number}.{LINEARS[family][PARTS.index(part)]}"


def test_the_importance_matrix_has_a_row_and_a_count_for_each_expert(
    family: str, written: tuple[Path, Any, list[LayerView]]
) -> None:
    tensors = gguf_folders.tensors_of(written[0] / "imatrix.gguf")
    for view in written[2]:
        for part in PARTS:
            name = f"blk.{view.index}.{part}.weight"
            moments = [view.moments[linear(family, part, number)] for number in range(4)]
            expected = torch.stack([each.H.diagonal() for each in moments]).numpy()
            assert np.array_equal(tensors[f"{name}.in_sum2"][1], expected)
            counts = np.array([[each.weight_sum] for each in moments], np.float32)
            assert np.array_equal(tensors[f"{name}.counts"][1], counts)
            assert len({float(count) for count in counts.flat}) > 1  # each saw tokens of its own


@pytest.mark.parametrize("part", PARTS)
def test_each_expert_is_compensated_with_its_own_moments(
    family: str, written: tuple[Path, Any, list[LayerView]], part: str
) -> None:
    view = written[2][1]
    data = gguf_folders.tensors_of(written[0] / "m-Q4_0.gguf")[f"blk.1.{part}.weight"][1]
    for number in range(4):
        name = linear(family, part, number)
        moments = view.moments[name]
        compensator = Compensator(moments, view.heldout[name])
        importance = (moments.H.diagonal() / np.float32(moments.weight_sum)).numpy()
        solved = compensator.solve({"W": view.weights[f"{name}.weight"]}, TYPES["Q4_0"], importance)["W"]
        assert np.array_equal(data[number], solved.data)
        other = view.moments[linear(family, part, (number + 1) % 4)]
        theirs = (other.H.diagonal() / np.float32(other.weight_sum)).numpy()
        swapped = Compensator(other, None).solve({"W": view.weights[f"{name}.weight"]}, TYPES["Q4_0"], theirs)["W"]
        assert not np.array_equal(data[number], swapped.data)


def test_the_manifest_says_as_much_of_many_experts_as_of_few(written: tuple[Path, dict[str, Any], Any]) -> None:
    facts = written[1]
    json.dumps(facts)
    assert facts["experts"]["count"] == 4
    assert facts["experts"]["too_few_tokens"] == {}
    file = facts["files"]["m-Q4_0.gguf"]
    assert len(file["linears"]) == 2 * (4 + 3)
    stacked = file["linears"]["blk.0.ffn_up_exps.weight"]
    assert (stacked["experts"], stacked["compensated"], stacked["judged_on"]) == (4, 4, "held-out")
    assert stacked["error"] < stacked["imatrix_error"]
    assert file["error"] < file["imatrix_error"]
    assert facts["files"]["m-F16.gguf"].get("linears") is None


def test_error_feedback_at_q4_k_m_beats_the_importance_matrix_on_held_out_tokens(family: str, tmp_path: Path) -> None:
    wide = {"hidden_size": 256, "intermediate_size": 256, "head_dim": 64}
    wide |= {"moe_intermediate_size": 256} if family == "qwen3_moe" else {}
    folder = models.tiny_model(tmp_path / "m", family, num_hidden_layers=1, **wide)
    tensors = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(5)
    # inputs that hang together, as those of a trained model do: without that there is nothing to make up for
    some = torch.randn(320, 12, generator=generator) @ torch.randn(12, 256, generator=generator)
    tensors["model.embed_tokens.weight"] = some + 0.3 * torch.randn(320, 256, generator=generator)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    file = write(folder, tmp_path / "out", "Q4_K_M")["files"]["m-Q4_K_M.gguf"]
    for part in PARTS[:2]:
        facts = file["linears"][f"blk.0.{part}.weight"]
        assert (facts["type"], facts["judged_on"], facts["compensated"]) == ("Q4_K", "held-out", 4)
        assert facts["error"] < 0.8 * facts["imatrix_error"]
    assert file["error"] < 0.9 * file["imatrix_error"]


@pytest.mark.parametrize("method", ["gptq", "imatrix"])
def test_a_starved_expert_is_named_and_served_by_the_tokens_of_all(
    family: str, starved: Path, tmp_path: Path, method: str
) -> None:
    said, seen = Said(), Views()
    with progress.reporting(said):
        facts = write(starved, tmp_path / "out", method=method, visitors=(seen,))
    prefix = f"model.layers.0.{BLOCK[family]}"
    gate, up, down = LINEARS[family]
    named = facts["experts"]["too_few_tokens"]
    assert set(named) == {f"{prefix}.experts.0.{name}" for name in LINEARS[family]}
    (line,) = [line for line in said.lines if "too few calibration tokens" in line]
    assert line == (
        f"{prefix}: too few calibration tokens were sent to 1 of 4 experts: 0 ({gate}, {up} "
        f"calibrated on the tokens of all experts of the layer; {down} llama.cpp's own codes, unweighed)"
    )
    assert not any("expert 0:" in line for line in said.lines)
    view = seen.views[0]
    pool = view.pools[linear(family, PARTS[0], 0)].moments
    importance = (pool.H.diagonal() / np.float32(pool.weight_sum)).numpy()
    data = gguf_folders.tensors_of(tmp_path / "out/m-Q4_0.gguf")
    for part, weights in ((PARTS[0], importance), (PARTS[2], np.ones(view.moments[linear(family, PARTS[2], 0)].width))):
        W = view.weights[f"{linear(family, part, 0)}.weight"].numpy()
        own = quantize(W, TYPES["Q4_0"], weights.astype(np.float32))
        found = data[f"blk.0.{part}.weight"][1][0]
        assert np.array_equal(found, own) is (method == "imatrix" or part == PARTS[2])
    if method == "gptq":
        linears = facts["files"]["m-Q4_0.gguf"]["linears"]
        assert linears["blk.0.ffn_gate_exps.weight"]["pooled"] == [0]
        assert linears["blk.0.ffn_down_exps.weight"]["reasons"]["0"].startswith("only 0 tokens")
        fallbacks = facts["files"]["m-Q4_0.gguf"]["fallbacks"]
        assert fallbacks["blk.0.ffn_down_exps.weight of expert 0"].startswith("only 0 tokens for a width of")


def test_the_file_of_the_importance_matrix_gives_the_bytes_of_the_pass(starved: Path, tmp_path: Path) -> None:
    write(starved, tmp_path / "pass", method="imatrix")
    path = tmp_path / "pass/imatrix.gguf"
    said = Said()
    (tmp_path / "file").mkdir()
    with progress.reporting(said):
        options = GgufOptions(types=("Q4_0",), method="imatrix", imatrix=path, name="m")
        target = FORMAT.open(open_checkpoint(starved), tmp_path / "file", options, "abc")
    assert target.needs_moments is False
    facts = target.finish()
    assert (tmp_path / "file/m-Q4_0.gguf").read_bytes() == (tmp_path / "pass/m-Q4_0.gguf").read_bytes()
    assert facts["imatrix"]["experts_without_tokens"] == {"blk.0.ffn_down_exps.weight": [0]}
    (line,) = said.lines
    assert line == f"{path}: no token reached some experts, their inputs count alike: blk.0.ffn_down_exps 0"


SUMS = gguf_folders.arithmetic((3, 64), 3, 1.0) ** 2 * 50


def imatrix_file(path: Path, counts: list[float], sums: np.ndarray = SUMS) -> Path:
    writer = gguf.GGUFWriter(path, arch="")
    writer.add_type("imatrix")
    writer.add_tensor("blk.0.ffn_up_exps.weight.in_sum2", sums)
    writer.add_tensor("blk.0.ffn_up_exps.weight.counts", np.array(counts, np.float32).reshape(-1, 1))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def read(path: Path) -> Any:
    return read_imatrix(path, {"blk.0.ffn_up_exps.weight": 64}, {"blk.0.ffn_up_exps.weight": 3})


def test_an_expert_without_a_count_has_ones_as_in_llama_quantize(tmp_path: Path) -> None:
    found = read(imatrix_file(tmp_path / "imatrix.gguf", [4, 0, 9]))
    rows = [found.imatrix.importance("blk.0.ffn_up_exps.weight", number) for number in range(3)]
    assert np.array_equal(rows, [SUMS[0] / np.float32(4), np.ones(64), SUMS[2] / np.float32(9)])
    assert found.facts["experts_without_tokens"] == {"blk.0.ffn_up_exps.weight": [1]}


def test_the_older_form_has_one_count_for_all_experts(tmp_path: Path) -> None:
    name = b"blk.0.ffn_up_exps.weight"
    header = struct.pack(f"<ii{len(name)}sii", 1, len(name), name, 5, SUMS.size)
    (tmp_path / "imatrix.dat").write_bytes(header + SUMS.astype("<f4").tobytes())
    found = read(tmp_path / "imatrix.dat")
    for number in range(3):
        assert np.array_equal(found.imatrix.importance(name.decode(), number), SUMS[number] / np.float32(5))
    assert "experts_without_tokens" not in found.facts


@pytest.mark.parametrize(
    ("counts", "sums", "message"),
    [
        ([0, 0, 0], SUMS, "no token reached it"),
        ([1, 2], SUMS, "has 2 counts, expected 3"),
        ([1, 2, 3], SUMS[:, :32].copy(), "has 96 channels, expected 64 for each of 3 experts"),
    ],
)
def test_importances_that_do_not_fit_the_experts_are_refused(
    tmp_path: Path, counts: list[float], sums: np.ndarray, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read(imatrix_file(tmp_path / "imatrix.gguf", counts, sums))


def test_experts_of_which_none_saw_a_token_are_an_error() -> None:
    with pytest.raises(StepError, match=r"no calibration token reached blk\.0\.ffn_up_exps\.weight"):
        Imatrix().add("blk.0.ffn_up_exps.weight", Moments.zeros(8), Moments.zeros(8))


@pytest.mark.parametrize("method", ["gptq", "imatrix"])
def test_a_target_goes_on_after_a_layer_to_the_same_bytes(starved: Path, tmp_path: Path, method: Any) -> None:
    checkpoint, seen = open_checkpoint(starved), Views()
    expected = write(starved, tmp_path / "whole", "Q4_0", "Q5_1", method=method, visitors=(seen,))
    out = tmp_path / "again"
    out.mkdir()
    options = GgufOptions(types=("Q4_0", "Q5_1"), name="m", method=method)
    killed = FORMAT.open(checkpoint, out, options, "abc")
    killed.layer(seen.views[0])
    snapshot = killed.snapshot()
    json.dumps(snapshot.facts)
    other = FORMAT.open(checkpoint, out, options, "abc")
    other.restore(snapshot)
    other.layer(seen.views[1])
    assert other.finish() == expected
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (out / path.name).read_bytes()


def test_methods_by_pattern_reach_stacked_tensors(family: str, model: Path, written: Any, tmp_path: Path) -> None:
    down = LINEARS[family][2]
    overrides = {f"*.experts.*.{down}": {"method": "imatrix"}, "*.ffn_up_exps": {"method": "rtn"}}
    facts = write(model, tmp_path / "out", overrides=overrides)["files"]["m-Q4_0.gguf"]
    mixed = gguf_folders.tensors_of(tmp_path / "out/m-Q4_0.gguf")
    write(model, tmp_path / "imatrix", method="imatrix")
    write(model, tmp_path / "rtn", method="rtn")
    for part, folder in zip(PARTS, (written[0], tmp_path / "rtn", tmp_path / "imatrix"), strict=True):
        name = f"blk.1.{part}.weight"
        assert np.array_equal(mixed[name][1], gguf_folders.tensors_of(folder / "m-Q4_0.gguf")[name][1])
    assert {name.split(".")[2] for name in facts["linears"] if "exps" in name} == {"ffn_gate_exps"}


def test_the_bytes_are_those_of_each_expert_by_itself(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(gguf_expert_folders.expert_folder(tmp_path / "m", "few", layers=1))
    target = FORMAT.open(checkpoint, tmp_path, GgufOptions(types=("Q4_K_M",), method="imatrix", name="m"), "abc")
    (view,) = gguf_expert_folders.expert_views(checkpoint)
    target.layer(view)
    target.finish()
    kind, data = gguf_folders.tensors_of(tmp_path / "m-Q4_K_M.gguf")["blk.0.ffn_up_exps.weight"]
    for number in range(3):
        name = f"block_sparse_moe.experts.{number}.w3"
        W = checkpoint.read(f"model.layers.0.{name}.weight", dtype=torch.float32).numpy()
        moments = view.moments[name]
        importance = np.ones(256, np.float32)
        if number != gguf_expert_folders.UNSEEN:
            importance = moments.upper.diagonal().numpy() / np.float32(moments.weight_sum)
        assert np.array_equal(data[number], quantize(W, TYPES[kind], importance))


def test_a_killed_run_goes_on_at_its_layer_to_the_same_bytes(family: str, tmp_path: Path) -> None:
    folder = models.starved_model(tmp_path / "model", family, num_hidden_layers=resumed.LAYERS)
    formats = ("gguf", "imatrix")
    resumed.kill(folder, tmp_path / "out", "forward", 1, formats=formats)
    said = resumed.quantize(folder, tmp_path / "out", formats)
    assert said.lines[0] == f"going on at layer 2 of {resumed.LAYERS}"
    resumed.quantize(folder, tmp_path / "whole", formats)
    assert resumed.files(tmp_path / "out") == resumed.files(tmp_path / "whole")
