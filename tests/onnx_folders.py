"""Tiny models exported to ONNX, each once in a test run: the builder takes seconds to start."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from models import tiny_model
from walk_data import random_data

from lf_export.checkpoint.index import open_checkpoint
from lf_export.formats.onnx import FORMAT
from lf_export.formats.onnx_options import OnnxOptions
from lf_export.quant.gptq import dequantize
from lf_export.quant.grid import Scheme
from lf_export.quant.solve import quantize_group
from lf_export.walk.stream import walk
from lf_export.walk.view import LayerView

DATA = random_data([40, 30, 50, 60, 20, 45, 38, 70] * 2)
LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
GEMMA_ROPE = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
}

# name → family, the model's config, the options
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "llama-fp32": ("llama", {}, {"precision": "fp32"}),
    "llama3-int4": (
        "llama",
        {"rope_parameters": LLAMA3_ROPE, "tie_word_embeddings": False, "dtype": torch.bfloat16},
        {"precision": "int4", "lm_head": "int4"},
    ),
    "mistral-fp32": ("mistral", {"sliding_window": 8, "tie_word_embeddings": False}, {"precision": "fp32"}),
    "qwen2-int4": ("qwen2", {}, {"precision": "int4", "sym": True, "group_size": 16, "accuracy_level": 1}),
    "qwen2-fp16": ("qwen2", {}, {"precision": "fp16"}),
    "gemma3-fp16": (
        "gemma3_text",
        {"sliding_window": 8, "num_hidden_layers": 6, "rope_parameters": GEMMA_ROPE},
        {"precision": "fp16"},
    ),
    "mistral-dynamo": (
        "mistral",
        {"sliding_window": 8, "tie_word_embeddings": False},
        {"precision": "fp32", "exporter": "dynamo"},
    ),
    "qwen3-cuda": (
        "qwen3",
        {"tie_word_embeddings": False},
        {"precision": "int8", "provider": "cuda", "method": "rtn", "group_size": 32},
    ),
    "phi3-int8": (
        "phi3",
        {"tie_word_embeddings": False, "original_max_position_embeddings": 512, "sliding_window": None},
        {"precision": "int8", "lm_head": "int8"},
    ),
}


@dataclass(frozen=True)
class Exported:
    """A tiny model, its artifact, what the format says of it, and what its linears have to be."""

    model: Path
    folder: Path
    facts: dict[str, Any]
    weights: Mapping[str, torch.Tensor]


def export(name: str, root: Path) -> Exported:
    """Make and export the case `name` in `root`."""
    family, config, options = CASES[name]
    checkpoint = open_checkpoint(tiny_model(root / "model", family, **config))
    folder = root / "artifact"
    folder.mkdir()
    target = FORMAT.open(checkpoint, folder, OnnxOptions(**options), DATA.digest)
    beside = _Beside(options, FORMAT.options(**options).bits, target.needs_moments)
    walk(checkpoint, DATA, [beside, target], dtype=torch.float32)
    return Exported(root / "model", folder, target.finish(), beside.weights)


class _Beside:
    """Solves each layer on its own account, for the comparison."""

    def __init__(self, options: Mapping[str, Any], bits: int | None, needs_moments: bool) -> None:
        self.needs_moments = needs_moments
        self.weights: dict[str, torch.Tensor] = {}
        size, sym = options.get("group_size", 64), options.get("sym", False)
        self._scheme = Scheme(bits=bits, group_size=size, sym=sym) if bits else None

    def layer(self, view: LayerView) -> None:
        if self._scheme is None or not self.needs_moments:
            return
        for group in view.groups:
            weights = {name: view.weights[f"{name}.weight"] for name in group}
            solved = quantize_group(weights, view.moments[group[0]], view.heldout.get(group[0]), self._scheme)
            self.weights |= {f"{view.prefix}.{name}": dequantize(each.quantized) for name, each in solved.items()}


def naive_weights(graph: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Every quantized linear of a layer, one value at a time, by the operator's specification."""
    import onnx

    model = onnx.load(str(graph))
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type != "MatMulNBits" or node.name.startswith("/lm_head"):
            continue
        about = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        B, scales, zeros = (tensors[name] for name in node.input[1:4])
        rows, width, bits, size = about["N"], about["K"], about["bits"], about["block_size"]
        blocks = width // size
        zeros = zeros.reshape(rows, -1)
        W = np.empty((rows, width), np.float32)
        for row in range(rows):
            for column in range(width):
                block, place = divmod(column, size)
                q, zero = _value(B[row, block], place, bits), _value(zeros[row], block, bits)
                W[row, column] = np.float32(q - zero) * scales.reshape(rows, blocks)[row, block]
        found[node.name] = W
    return found


def _value(packed: npt.NDArray[np.uint8], place: int, bits: int) -> int:
    byte, inside = divmod(place * bits, 8)
    return int(packed[byte] >> inside) & (2**bits - 1)
