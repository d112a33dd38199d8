"""What a GPTQ folder's `quantization_config` says, and which loaders understand linears that deviate.

Deviating linears stand under `dynamic`: `+:regex` → what differs, `-:regex` → not quantized, the first that matches
wins (GPTQModel's `QuantizeConfig.dynamic`; vLLM and SGLang read the same key). GPTQModel asks with the name of the
module. vLLM and SGLang run q, k and v as `qkv_proj` and gate and up as `gate_up_proj`, and ask with that name.
"""

import re
from collections.abc import Mapping
from typing import Any

from lf_export.checkpoint.index import Checkpoint
from lf_export.formats.linears import linear_names
from lf_export.quant.grid import Scheme
from lf_export.version import __version__
from lf_export.walk.families import family_of, num_layers

# How vLLM and SGLang call linears that they run as one.
_FUSED = {
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"): "self_attn.qkv_proj",
    ("mlp.gate_proj", "mlp.up_proj"): "mlp.gate_up_proj",
}


def quantization_config(
    checkpoint: Checkpoint, usual: Scheme, schemes: Mapping[str, Scheme], audit_digest: str
) -> dict[str, Any]:
    """The value of `quantization_config`, and of `quantize_config.json`.

    Args:
        checkpoint: the unquantized model.
        usual: the scheme of what is not named under `dynamic`.
        schemes: of each quantized linear.
        audit_digest: of the calibration data.
    """
    config: dict[str, Any] = {
        "quant_method": "gptq",
        "checkpoint_format": "gptq",
        "bits": usual.bits,
        "group_size": usual.group_size,
        "sym": usual.sym,
        "desc_act": usual.desc_act,
        "static_groups": True,
        "true_sequential": False,
        "damp_percent": usual.damp_percent,
        "lm_head": False,
        "pack_dtype": "int32",
        "meta": {"quantizer": [f"lf-export:{__version__}"], "calibration": audit_digest},
    }
    if dynamic := dynamic_of(checkpoint, usual, schemes) | _routers(checkpoint):
        config["dynamic"] = dynamic
    skipped = [name for name in linear_names(checkpoint) if name not in schemes]
    if skipped:
        # Transformers does not know `dynamic`, but replaces only what ends with one of these
        config["modules_in_block_to_quantize"] = [list(schemes)]
    return config


def dynamic_of(checkpoint: Checkpoint, usual: Scheme, schemes: Mapping[str, Scheme]) -> dict[str, dict[str, int]]:
    """One entry for each linear that deviates, and one under the name that it is fused to where all parts agree."""
    family = family_of(checkpoint.config)
    dynamic: dict[str, dict[str, int]] = {}
    for index in range(num_layers(checkpoint.config)):
        prefix = family.prefix(index)
        for group in family.groups_at(index):
            found = [schemes.get(f"{prefix}.{name}") for name in group]
            for name, scheme in zip(group, found, strict=True):
                _add(dynamic, f"{prefix}.{name}", usual, scheme)
            if group in _FUSED and len(set(found)) == 1:
                _add(dynamic, f"{prefix}.{_FUSED[group]}", usual, found[0])
    return dynamic


def loads_in(checkpoint: Checkpoint, usual: Scheme, schemes: Mapping[str, Scheme]) -> dict[str, str]:
    """Who loads a folder whose linears deviate or are experts', and who does not and why; empty for any other."""
    if family_of(checkpoint.config).experts is not None:
        return _loads_experts(checkpoint)
    if not dynamic_of(checkpoint, usual, schemes):
        return {}
    yes, no = "yes", "no: it does not hand `dynamic` on, tensors have other shapes than it expects"
    uneven = _uneven(checkpoint, schemes)
    fused = f"no: it runs {', '.join(uneven[0])} as one, and their schemes differ" if uneven else "not tried"
    return {
        "gptqmodel": yes,
        "transformers": yes if all(scheme == usual for scheme in schemes.values()) else no,
        "vllm": fused,
        "sglang": fused,
    }


def _loads_experts(checkpoint: Checkpoint) -> dict[str, str]:
    """As seen with gptqmodel 7.6.0 and transformers 5.23."""
    experts = family_of(checkpoint.config).experts
    renamed = experts is not None and experts.block != "mlp"
    return {
        "gptqmodel": "no: it asks for other names than the checkpoint has (mlp.experts.N.gate_proj)"
        if renamed
        else "yes",
        "transformers": "no: it holds experts in one tensor, and leaves them without weights, with no error",
        "vllm": "not tried",
        "sglang": "not tried",
    }


def _routers(checkpoint: Checkpoint) -> dict[str, dict[str, int]]:
    """That the routers of experts, which choose and hardly compute, are stored as they are."""
    experts = family_of(checkpoint.config).experts
    # loaders ask with the name in the checkpoint or with transformers', where every block is `mlp`
    return {} if experts is None else {rf"-:^.*\.(?:{'|'.join(sorted({experts.block, 'mlp'}))})\.gate$": {}}


def _uneven(checkpoint: Checkpoint, schemes: Mapping[str, Scheme]) -> list[list[str]]:
    """The linears that vLLM fuses and whose schemes differ; it runs the experts of a layer as one."""
    family = family_of(checkpoint.config)
    groups = []
    for index in range(num_layers(checkpoint.config)):
        prefix, experts = family.prefix(index), family.experts_at(index)
        together = [] if experts is None else [[name for group in experts.groups for name in group]]
        groups += [[f"{prefix}.{name}" for name in group] for group in [*family.groups_at(index), *together]]
    return [group for group in groups if len({schemes.get(name) for name in group}) > 1]


def _add(dynamic: dict[str, dict[str, int]], module: str, usual: Scheme, scheme: Scheme | None) -> None:
    exact = f"^{re.escape(module)}$"
    if scheme is None:
        dynamic[f"-:{exact}"] = {}
    elif scheme != usual:
        dynamic[f"+:{exact}"] = {"bits": scheme.bits, "group_size": scheme.group_size}
