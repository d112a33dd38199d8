"""Model folders whose weights are the same on every machine, and what the GGUF tests read from files."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import gguf
import models
import numpy as np
import torch
from safetensors.numpy import save_file
from walk_data import random_data

from lf_export.checkpoint.index import Checkpoint, open_checkpoint
from lf_export.formats.gguf import FORMAT, GgufOptions
from lf_export.quant.moments import Moments
from lf_export.walk.stream import walk
from lf_export.walk.view import LayerView

SHAPES: dict[str, dict[str, Any]] = {
    # K-quants fit; four heads share a key-value head; the output has weights of its own.
    "divisible": {"hidden_size": 256, "intermediate_size": 256, "num_attention_heads": 8, "tie_word_embeddings": False},
    # No width is a multiple of 256: every K-quant falls back; the embeddings are tied.
    "fallback": {"hidden_size": 96, "intermediate_size": 320, "num_attention_heads": 6, "tie_word_embeddings": True},
    # Every head has its own values, and there are sixteen layers: rules that look at either take another way.
    "deep": {
        "hidden_size": 256,
        "intermediate_size": 256,
        "num_attention_heads": 2,
        "num_hidden_layers": 16,
        "tie_word_embeddings": False,
    },
}
LAYERS = 8


def arithmetic(shape: tuple[int, ...], seed: int, scale: float) -> np.ndarray:
    """Numbers in ±scale from a multiplicative hash of their index: integers only, so the same everywhere."""
    index = np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64(seed * 1_000_003 + 1)
    mixed = (index * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(7)
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    unit = (mixed >> np.uint64(40)).astype(np.float64) / 2**24 - 0.5
    return (2 * scale * unit).astype(np.float32).reshape(shape)


def arithmetic_folder(folder: Path, name: str) -> Path:
    """A Llama of `SHAPES[name]` with arithmetic weights."""
    folder.mkdir(parents=True)
    shape = SHAPES[name]
    hidden, inner, heads = shape["hidden_size"], shape["intermediate_size"], shape["num_attention_heads"]
    kv = hidden // heads * 2
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 320,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "rope_theta": 10000.0,
        **shape,
    }
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (320, hidden), "model.norm.weight": (hidden,)}
    if not shape["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (320, hidden)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        shapes |= {f"{prefix}{norm}_layernorm.weight": (hidden,) for norm in ("input", "post_attention")}
        for part, rows, width in (
            ("self_attn.q_proj", hidden, hidden),
            ("self_attn.k_proj", kv, hidden),
            ("self_attn.v_proj", kv, hidden),
            ("self_attn.o_proj", hidden, hidden),
            ("mlp.gate_proj", inner, hidden),
            ("mlp.up_proj", inner, hidden),
            ("mlp.down_proj", hidden, inner),
        ):
            shapes[f"{prefix}{part}.weight"] = (rows, width)
    tensors = {key: arithmetic(size, seed, 0.1) for seed, (key, size) in enumerate(sorted(shapes.items()))}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    models.tiny_tokenizer().save_pretrained(folder)
    return folder


def layer_views(checkpoint: Any) -> list[LayerView]:
    """The views of a walk with arithmetic moments, each linear with its own."""
    views = []
    for layer in range(checkpoint.config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        moments = {}
        for name, info in checkpoint.tensors.items():
            if name.startswith(prefix + ".") and len(info.shape) == 2:
                found = Moments.zeros(info.shape[1])
                values = np.abs(arithmetic((info.shape[1],), len(name) + layer, 1.0)) * 7 + np.float32(0.01)
                found.upper.diagonal().copy_(torch.from_numpy(values))
                found.weight_sum, found.count = 7.0, 7
                moments[name.removeprefix(prefix + ".").removesuffix(".weight")] = found
        views.append(LayerView(layer, prefix, {}, (), moments, {}))
    return views


def tensors_of(path: Path) -> dict[str, tuple[str, np.ndarray]]:
    """Name → (type, bytes) of every tensor in a GGUF."""
    return {tensor.name: (tensor.tensor_type.name, np.array(tensor.data)) for tensor in gguf.GGUFReader(path).tensors}


def digest(path: Path) -> str:
    """The sha256 of every tensor's name, type and bytes, by name."""
    total = hashlib.sha256()
    for name, (kind, data) in sorted(tensors_of(path).items()):
        total.update(f"{name} {kind}\n".encode())
        total.update(np.ascontiguousarray(data).tobytes())
    return total.hexdigest()


def fields_of(path: Path) -> dict[str, Any]:
    """The metadata of a GGUF as Python values."""
    return {key: field.contents() for key, field in gguf.GGUFReader(path).fields.items()}


def write(model: Path, out: Path, *types: str, **options: Any) -> dict[str, Any]:
    """Quantize a folder to files of `types` with random calibration data; what the manifest says."""
    out.mkdir(exist_ok=True)
    checkpoint = open_checkpoint(model)
    target = FORMAT.open(checkpoint, out, GgufOptions(types=types, **options), "abc")
    walk(checkpoint, random_data([40, 60, 50, 70] * 12), [target], dtype=torch.float32)
    return target.finish()


def digests(
    checkpoint: Checkpoint, out: Path, types: Sequence[str], views: Iterable[LayerView] | None
) -> dict[str, str]:
    """The digest of each type's file by llama.cpp's own rounding, with an importance matrix where there are views."""
    options = GgufOptions(types=tuple(types), method="rtn" if views is None else "imatrix", name="m")
    target = FORMAT.open(checkpoint, out, options, "digest")
    for view in views or ():
        target.layer(view)
    target.finish()
    return {name: digest(out / f"m-{name}.gguf") for name in types}
