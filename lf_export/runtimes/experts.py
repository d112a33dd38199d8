"""The experts of a checkpoint, a matrix each, as the two tensors of a layer in which transformers 5 holds them."""

from collections.abc import Mapping
from typing import Any

import torch

from lf_export.walk.families import FAMILIES, Experts, family_of, num_layers


def fuse_experts(state: dict[str, torch.Tensor], config: Mapping[str, Any]) -> None:
    """Replace the experts in a state dict, layer by layer: nothing is in memory twice but one layer.

    Args:
        state: by name in the checkpoint; changed in place. Where it lacks a matrix, what there is stays as it is.
        config: of the model; without experts nothing changes.
    """
    if config.get("model_type") not in FAMILIES:
        return
    family = family_of(config)
    for index in range(num_layers(config)):
        experts = family.experts_at(index)
        if experts is not None:
            _fuse(state, f"{family.prefix(index)}.", experts)


def _fuse(state: dict[str, torch.Tensor], prefix: str, experts: Experts) -> None:
    gates, ups, downs = (
        [f"{prefix}{experts.block}.experts.{number}.{name}.weight" for number in range(experts.count)]
        for name in (experts.gate, experts.up, experts.down)
    )
    if not all(name in state for name in (*gates, *ups, *downs)):
        return
    inner, width = state[gates[0]].shape
    gate_up = torch.empty(experts.count, 2 * inner, width)
    for number, (gate, up) in enumerate(zip(gates, ups, strict=True)):
        gate_up[number, :inner] = state.pop(gate)
        gate_up[number, inner:] = state.pop(up)
    state[f"{prefix}mlp.experts.gate_up_proj"] = gate_up
    state[f"{prefix}mlp.experts.down_proj"] = torch.stack([state.pop(name) for name in downs])
    state[f"{prefix}mlp.gate.weight"] = state.pop(f"{prefix}{experts.block}.gate.weight")
