"""Small model and adapter folders, written by the safetensors library and not by ours."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

Tensors = dict[str, torch.Tensor]


def _base_tensors(dtype: torch.dtype = torch.bfloat16, layers: int = 2) -> dict[str, torch.Tensor]:
    """The tensors of a model with two projections a layer, of 6 × 4 and 8 × 4."""
    torch.manual_seed(0)
    tensors = {"model.embed_tokens.weight": torch.randn(10, 4).to(dtype)}
    for layer in range(layers):
        tensors[f"model.layers.{layer}.self_attn.q_proj.weight"] = torch.randn(6, 4).to(dtype)
        tensors[f"model.layers.{layer}.self_attn.k_proj.weight"] = torch.randn(8, 4).to(dtype)
        tensors[f"model.layers.{layer}.input_layernorm.weight"] = torch.randn(4).to(dtype)
    return tensors


def _lora_tensors(rank: int = 2, layers: int = 2, targets: tuple[str, ...] = ("q_proj",)) -> dict[str, torch.Tensor]:
    """The tensors of an adapter on `targets` of every layer."""
    torch.manual_seed(1)
    rows = {"q_proj": 6, "k_proj": 8}
    tensors = {}
    for layer in range(layers):
        for name in targets:
            prefix = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            tensors[f"{prefix}.lora_A.weight"] = torch.randn(rank, 4)
            tensors[f"{prefix}.lora_B.weight"] = torch.randn(rows[name], rank)
    return tensors


@pytest.fixture
def base_tensors() -> Callable[..., Tensors]:
    """The tensors of a model with two projections a layer, of 6 × 4 and 8 × 4."""
    return _base_tensors


@pytest.fixture
def lora_tensors() -> Callable[..., Tensors]:
    """The tensors of an adapter of rank 2 on `targets` of every layer."""
    return _lora_tensors


@pytest.fixture
def make_base(tmp_path: Path) -> Callable[..., Path]:
    """Write a base model folder: `shards` files, the given tensors and config fields."""

    def make(
        tensors: Mapping[str, torch.Tensor] | None = None, shards: int = 1, name: str = "base", **config: Any
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        tensors = _base_tensors() if tensors is None else tensors
        fields = {"model_type": "llama", "dtype": "bfloat16", "tie_word_embeddings": True, **config}
        (folder / "config.json").write_text(json.dumps(fields), encoding="utf-8")
        if shards == 1:
            save_file(dict(tensors), folder / "model.safetensors", {"format": "pt"})
            return folder
        weight_map = {}
        for number in range(shards):
            file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
            part = dict(list(tensors.items())[number::shards])
            save_file(part, folder / file, {"format": "pt"})
            weight_map |= dict.fromkeys(part, file)
        index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
        return folder

    return make


@pytest.fixture
def make_adapter(tmp_path: Path) -> Callable[..., Path]:
    """Write an adapter folder with the given tensors and config fields."""

    def make(tensors: Mapping[str, torch.Tensor] | None = None, name: str = "adapter", **config: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        fields = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], **config}
        (folder / "adapter_config.json").write_text(json.dumps(fields), encoding="utf-8")
        save_file(dict(_lora_tensors() if tensors is None else tensors), folder / "adapter_model.safetensors")
        return folder

    return make
