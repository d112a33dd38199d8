"""A mixture of experts in a GGUF: for each matrix one tensor of a layer, in which the experts follow each other."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lf_export.checkpoint.index import Checkpoint, TensorInfo
from lf_export.walk.families import Experts, family_of, num_layers

_MOST = 512  # LLAMA_MAX_EXPERTS


@dataclass(frozen=True)
class Stack:
    """The matrices of all experts of a layer that become one tensor.

    Attributes:
        name: as the checkpoint would name it without the experts' numbers.
        layer: the decoder layer.
        members: the matrices, [out, in] each, in the experts' order.
    """

    name: str
    layer: int
    members: tuple[TensorInfo, ...]


def count(config: Mapping[str, Any]) -> int:
    """How many experts a layer has; 0 for a model without."""
    experts = _experts(config)
    return 0 if experts is None else experts.count


def stacks(checkpoint: Checkpoint) -> tuple[list[Stack], list[str]]:
    """What is stacked of a mixture of experts, layer by layer, and what keeps it from being so."""
    family, experts = family_of(checkpoint.config), _experts(checkpoint.config)
    if experts is None:
        return [], []
    found: list[Stack] = []
    problems: list[str] = []
    for layer in range(num_layers(checkpoint.config)):
        fused = f"{family.prefix(layer)}.mlp.experts.gate_up_proj"
        if fused in checkpoint.tensors:
            problems.append(
                f"{checkpoint.info(fused).file}: the tensor {fused} holds all experts of a layer, "
                "expected a matrix for each, as save_pretrained writes them"
            )
        prefix = f"{family.prefix(layer)}.{experts.block}.experts"
        for part in (experts.gate, experts.up, experts.down):
            names = [f"{prefix}.{number}.{part}.weight" for number in range(experts.count)]
            missing = [name for name in names if name not in checkpoint.tensors]
            if missing:
                more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
                problems.append(f"{checkpoint.root}: the tensor {missing[0]} is missing{more}")
                continue
            members = tuple(checkpoint.info(name) for name in names)
            problems += [
                f"{each.file}: {each.name} is {list(each.shape)}, expert 0's is {list(members[0].shape)}"
                for each in members
                if tuple(each.shape) != tuple(members[0].shape)
            ]
            found.append(Stack(f"{prefix}.{part}.weight", layer, members))
    return found, problems


def problems(config: Mapping[str, Any]) -> list[str]:
    """What llama.cpp computes otherwise for a mixture of experts, or does not hold."""
    experts = _experts(config)
    if experts is None:
        return []
    found = []
    if experts.dense:
        layers = ", ".join(map(str, sorted(experts.dense)[:4])) + (", …" if len(experts.dense) > 4 else "")
        found.append(f"config.json: layers without experts ({layers}), llama.cpp expects experts in every layer")
    if experts.count > _MOST:
        found.append(f"config.json: {experts.count} experts, llama.cpp holds {_MOST} at the most")
    # Mixtral has no such key, and what its chosen experts count always sums to one
    if config["model_type"] == "qwen3_moe" and experts.chosen > 1 and not config.get("norm_topk_prob", False):
        found.append("config.json: norm_topk_prob is false, llama.cpp makes what the chosen experts count sum to one")
    return found


def add_metadata(writer: Any, config: Mapping[str, Any]) -> None:
    """Write how many experts there are and how wide they are to `writer`, a GGUFWriter; nothing without experts."""
    experts = _experts(config)
    if experts is None:
        return
    writer.add_expert_count(experts.count)
    writer.add_expert_used_count(experts.chosen)
    if "moe_intermediate_size" in config:
        writer.add_expert_feed_forward_length(int(config["moe_intermediate_size"]))


def _experts(config: Mapping[str, Any]) -> Experts | None:
    return family_of(config).experts
