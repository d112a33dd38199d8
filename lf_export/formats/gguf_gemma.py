"""What a GGUF of Gemma 3 says beyond other decoders: its window, its two rotary embeddings, its norms' offset."""

from collections.abc import Mapping
from typing import Any

NORM_OFFSET = 1.0
"""Gemma multiplies by 1 + weight; llama.cpp by what the file holds."""

_PATTERN = 6  # layers from one that looks at all to the next, where a config does not say
_SLIDING, _FULL = "sliding_attention", "full_attention"


def period(config: Mapping[str, Any]) -> int | None:
    """Layers from one that looks at all to the next; None where the layers follow no period."""
    types = config.get("layer_types")
    every = int(config.get("sliding_window_pattern") or config.get("_sliding_window_pattern") or _PATTERN)
    if types is None:
        return every
    if _FULL in types:
        every = list(types).index(_FULL) + 1
    expected = [_SLIDING if (layer + 1) % every else _FULL for layer in range(len(types))]
    return every if list(types) == expected else None


def rope_parameters(config: Mapping[str, Any], *, sliding: bool) -> dict[str, Any]:
    """The rotary embedding of layers with a window, or of those that look at all."""
    kinds = config.get("rope_parameters") or {}
    if _FULL in kinds:
        found = dict(kinds[_SLIDING if sliding else _FULL])
    elif sliding:
        found = {"rope_theta": config.get("rope_local_base_freq", 10000.0)}
    else:
        found = {"rope_theta": config.get("rope_theta", 1000000.0), **(config.get("rope_scaling") or {})}
    found["rope_type"] = found.get("rope_type") or found.get("type") or "default"
    return found


def problems(config: Mapping[str, Any], head_dim: int) -> list[str]:
    """What llama.cpp computes otherwise for this architecture."""
    found = []
    activation = config.get("hidden_activation") or config.get("hidden_act") or "gelu_pytorch_tanh"
    if activation != "gelu_pytorch_tanh":
        found.append(f"config.json: hidden_activation is {activation!r}, llama.cpp computes gelu_pytorch_tanh")
    scale = config.get("query_pre_attn_scalar", 256)
    # llama.cpp takes a model of 62 layers for the 27B, whose queries are scaled by the width a head would have
    wide = int(config["hidden_size"]) // int(config["num_attention_heads"])
    expected = wide if config["num_hidden_layers"] == 62 else head_dim
    if scale != expected:
        found.append(f"config.json: query_pre_attn_scalar is {scale}, llama.cpp takes {expected}")
    found += [
        f"config.json: {key} is {config[key]}, llama.cpp has none for this architecture"
        for key in ("final_logit_softcapping", "attn_logit_softcapping", "use_bidirectional_attention")
        if config.get(key)
    ]
    if period(config) is None:
        found.append("config.json: layer_types follow no period, llama.cpp needs one")
    local = rope_parameters(config, sliding=True)["rope_type"]
    if local != "default":
        found.append(f"config.json: the rotary embedding of layers with a window is {local!r}, expected default")
    return found


def add_metadata(writer: Any, config: Mapping[str, Any]) -> None:
    """Write the window and the rotary embedding of the layers that have it to `writer`, a GGUFWriter."""
    writer.add_sliding_window(int(config["sliding_window"]))
    writer.add_sliding_window_pattern(int(period(config) or _PATTERN))
    writer.add_rope_freq_base_swa(float(rope_parameters(config, sliding=True)["rope_theta"]))
