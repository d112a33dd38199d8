"""Our AWQ result as an ONNX graph: no integer, zero or scale of it is rounded again, and its norms come with it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from models import tiny_model
from onnx_folders import DATA, naive_weights
from pydantic import ValidationError
from safetensors.torch import load_file

from lf_export.checkpoint.index import open_checkpoint
from lf_export.errors import StepError
from lf_export.formats import FORMATS
from lf_export.quant import dequantize_awq
from lf_export.runtimes import runtime
from lf_export.walk.stream import walk

PARTS = ("qweight", "qzeros", "scales")
IDS = list(range(5, 60))
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"tie_word_embeddings": False}),
    "qwen2": ("qwen2", {"dtype": torch.bfloat16}),  # biases of q, k and v; what takes a scale is stored in bfloat16
    "phi3": ("phi3", {"tie_word_embeddings": False, "original_max_position_embeddings": 512, "sliding_window": None}),
}


@dataclass(frozen=True)
class Both:
    """The AWQ folder and the ONNX folder of one walk."""

    model: Path
    awq: Path
    onnx: Path
    facts: dict[str, Any]


@pytest.fixture(scope="module", params=CASES)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Both:
    family, config = CASES[request.param]
    root = tmp_path_factory.mktemp("both")
    checkpoint = open_checkpoint(tiny_model(root / "model", family, **config))
    options = {"awq": {"group_size": 32}, "onnx": {"group_size": 32, "method": "awq", "accuracy_level": 1}}
    targets = []
    for name, asked in options.items():
        (root / name).mkdir()
        kind = FORMATS[name]
        targets.append(kind.open(checkpoint, root / name, kind.options(**asked), DATA.digest))
    walk(checkpoint, DATA, targets, dtype=torch.float32)
    facts = [target.finish() for target in targets]
    return Both(root / "model", root / "awq", root / "onnx", facts[1] | {"awq": facts[0]})


def test_the_graphs_weights_are_those_of_the_awq_folder_bit_for_bit(both: Both) -> None:
    stored = load_file(both.awq / "model.safetensors")
    linears = {
        name.removesuffix(".qweight"): dequantize_awq({part: stored[name.replace("qweight", part)] for part in PARTS})
        for name in stored
        if name.endswith(".qweight")
    }
    found = naive_weights(both.onnx / "model.onnx")
    assert found
    for node, W in found.items():
        np.testing.assert_array_equal(W, _source(node, linears).numpy(), err_msg=node)


def _source(node: str, linears: dict[str, torch.Tensor]) -> torch.Tensor:
    """The rows of the folder's linears that a node of the graph stands for."""
    stem = node.replace("/", ".").removeprefix(".").replace(".attn.", ".self_attn.").removesuffix(".MatMulNBits")
    if stem in linears:
        return linears[stem]
    parent, _, kind = stem.rpartition(".")
    if kind == "qkv_proj":
        return torch.cat([linears[f"{parent}.{letter}_proj"] for letter in "qkv"])
    fused = linears[f"{parent}.gate_up_proj"]
    return dict(zip(("gate_proj", "up_proj"), fused.chunk(2), strict=True))[kind]


def test_zeros_are_not_in_the_middle(both: Both) -> None:
    import onnx

    graph = onnx.load(str(both.onnx / "model.onnx")).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    nodes = [node for node in graph.node if node.op_type == "MatMulNBits"]
    zeros = {int(byte) for node in nodes for byte in onnx.numpy_helper.to_array(tensors[node.input[3]]).ravel()}
    assert len(zeros) > 8


def test_norms_and_biases_are_those_that_the_scales_were_folded_into(both: Both) -> None:
    before, after = load_file(both.model / "model.safetensors"), load_file(both.awq / "model.safetensors")
    changed = [name for name in before.keys() & after.keys() if not torch.equal(before[name], after[name])]
    assert any(name.endswith("input_layernorm.weight") for name in changed)
    held = _small_initializers(both.onnx / "model.onnx")
    for name in changed:
        expected = after[name].float().numpy()
        # the biases of q, k and v lie in one tensor of the graph
        assert any(_holds(tensor, expected) for tensor in held), name


def _small_initializers(graph: Path) -> list[npt.NDArray[Any]]:
    import onnx

    tensors = onnx.load(str(graph)).graph.initializer
    arrays = (onnx.numpy_helper.to_array(tensor) for tensor in tensors if len(tensor.dims) == 1)
    return [array for array in arrays if array.dtype == np.float32]


def _holds(tensor: npt.NDArray[Any], part: npt.NDArray[Any]) -> bool:
    starts = range(len(tensor) - len(part) + 1)
    return any(np.array_equal(tensor[start : start + len(part)], part) for start in starts)


def test_logits_are_those_of_the_awq_folder_in_torch(both: Both) -> None:
    (expected,) = runtime("torch").open_session(both.awq, 1).score([], [IDS], [1])
    (found,) = runtime("onnx").open_session(both.onnx, 1).score([], [IDS], [1])
    np.testing.assert_allclose(found, expected, atol=5e-5)  # float32 sums in another order


def test_facts_are_those_of_the_awq_folder(both: Both) -> None:
    facts = both.facts
    assert facts["options"]["method"] == "awq"
    assert facts["linears"] == facts["awq"]["linears"]
    assert facts["error"] < facts["rtn_error"]
    assert facts["verified"]["linears_bit_equal"] == len(facts["linears"])
    assert facts["verified"]["greedy_equal"] == 48


@pytest.mark.parametrize("options", [{"precision": "int8"}, {"sym": True}, {"precision": "fp16"}], ids=str)
def test_what_awq_has_no_integers_for_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="method awq needs precision int4 without sym"):
        FORMATS["onnx"].options(method="awq", **options)


def test_awq_that_beats_rounding_nowhere_fails_the_target(tmp_path: Path) -> None:
    from walk_data import random_data

    checkpoint = open_checkpoint(tiny_model(tmp_path / "model"))
    (tmp_path / "out").mkdir()
    kind = FORMATS["onnx"]
    target = kind.open(checkpoint, tmp_path / "out", kind.options(method="awq"), DATA.digest)
    walk(checkpoint, random_data([1]), [target])
    with pytest.raises(StepError, match="beat rounding to nearest in no linear"):
        target.finish()
