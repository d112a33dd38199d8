"""Mixtures of experts whose weights are the same on every machine, for the GGUF tests."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf_folders
import models
import numpy as np
import torch
from safetensors.numpy import save_file

from lf_export.quant.moments import Moments
from lf_export.walk.families import family_of
from lf_export.walk.view import LayerView

_SHAPE: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
# Eight experts have rules of their own in llama.cpp, four or more at two bits.
SHAPES: dict[str, dict[str, Any]] = {
    "mixtral": {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_local_experts": 8},
    "qwen3moe": {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "num_experts": 5,
        "moe_intermediate_size": 256,
        "norm_topk_prob": True,
    },
    "few": {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_local_experts": 3},
}
UNSEEN = 2
"""The expert that no token reaches in `expert_views`."""


def _shapes(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, head = config["hidden_size"], config["head_dim"]
    inner = config.get("moe_intermediate_size", config["intermediate_size"])
    yield from (("model.embed_tokens.weight", (320, hidden)), ("lm_head.weight", (320, hidden)))
    yield "model.norm.weight", (hidden,)
    experts = family_of(config).experts
    assert experts is not None
    rows = {"q": config["num_attention_heads"] * head, "k": config["num_key_value_heads"] * head}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        yield from ((f"{prefix}{norm}_layernorm.weight", (hidden,)) for norm in ("input", "post_attention"))
        for part, count in (rows | {"v": rows["k"]}).items():
            yield f"{prefix}self_attn.{part}_proj.weight", (count, hidden)
        yield f"{prefix}self_attn.o_proj.weight", (hidden, rows["q"])
        if config["model_type"] == "qwen3_moe":
            yield from ((f"{prefix}self_attn.{part}_norm.weight", (head,)) for part in "qk")
        yield f"{prefix}{experts.block}.gate.weight", (experts.count, hidden)
        for group in experts.groups:
            for name in group:
                down = name.endswith(experts.down)
                yield f"{prefix}{name}.weight", (hidden, inner) if down else (inner, hidden)


def expert_folder(folder: Path, name: str, layers: int = 2, *, sparse: bool = False) -> Path:
    """A mixture of experts of `SHAPES[name]` with arithmetic weights; `sparse`: with zeros that take no disk."""
    folder.mkdir(parents=True)
    config = _SHAPE | SHAPES[name] | {"num_hidden_layers": layers}
    shapes = dict(_shapes(config))
    if sparse:
        _save_zeros(folder / "model.safetensors", shapes)
    else:
        arrays = {
            key: gguf_folders.arithmetic(size, seed, 0.1) for seed, (key, size) in enumerate(sorted(shapes.items()))
        }
        save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    models.tiny_tokenizer().save_pretrained(folder)
    return folder


def _save_zeros(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def expert_views(checkpoint: Any) -> list[LayerView]:
    """The views of a walk with arithmetic moments, each linear with its own; expert `UNSEEN` saw no token."""
    views = []
    family = family_of(checkpoint.config)
    for layer in range(checkpoint.config["num_hidden_layers"]):
        moments = {}
        for seed, name in enumerate(family.linears_at(layer)):
            width = checkpoint.info(f"{family.prefix(layer)}.{name}.weight").shape[1]
            found = moments[name] = Moments.zeros(width)
            if f".experts.{UNSEEN}." not in name:
                values = np.abs(gguf_folders.arithmetic((width,), 100 * seed + layer, 1.0)) * 7 + np.float32(0.01)
                found.upper.diagonal().copy_(torch.from_numpy(values))
                found.weight_sum, found.count = 7.0, 70
        views.append(LayerView(layer, family.prefix(layer), {}, (), moments, {}))
    return views
