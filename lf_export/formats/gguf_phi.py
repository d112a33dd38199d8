"""What a GGUF of Phi-3 says beyond other decoders: its window, heads rotated in part, two sets of rotary factors."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

_LONG = {"longrope", "su"}  # su: what Microsoft's own code called it


def rotated(config: Mapping[str, Any], head_dim: int) -> int:
    """How many elements of a head rotate."""
    rope = config.get("rope_parameters") or {}
    return int(head_dim * float(rope.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0))


def problems(config: Mapping[str, Any], head_dim: int) -> list[str]:
    """What llama.cpp computes otherwise for this architecture."""
    found = []
    if config.get("hidden_act", "silu") != "silu":
        found.append(f"config.json: hidden_act is {config['hidden_act']!r}, llama.cpp computes silu")
    heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
    if heads * head_dim != hidden:
        found.append(f"config.json: {heads} heads of {head_dim} are not hidden_size {hidden}, llama.cpp expects it")
    rope, width = _rope(config), rotated(config, head_dim)
    if rope["rope_type"] not in {"default", *_LONG}:
        found.append(
            f"config.json: the rotary embedding {rope['rope_type']!r} cannot be written to a GGUF of phi3, "
            "known are default, longrope"
        )
    elif rope["rope_type"] in _LONG:
        found += [
            f"config.json: {key} has {len(rope.get(key) or ())} factors, expected {width // 2}"
            for key in ("long_factor", "short_factor")
            if len(rope.get(key) or ()) != width // 2
        ]
    return found


def factors(config: Mapping[str, Any]) -> dict[str, npt.NDArray[np.float32]]:
    """What divides each rotary frequency in long and in short contexts, [rotated / 2], by tensor name."""
    rope = _rope(config)
    if rope["rope_type"] not in _LONG:
        return {}
    return {f"rope_factors_{kind}.weight": np.array(rope[f"{kind}_factor"], np.float32) for kind in ("long", "short")}


def notes(config: Mapping[str, Any]) -> list[str]:
    """Where llama.cpp chooses among the factors in another way."""
    if _rope(config)["rope_type"] not in _LONG:
        return []
    longer = f"longer than {_original(config)} tokens"
    return [f"llama.cpp takes the long rotary factors where its context is {longer}, the model where the text is"]


def add_metadata(writer: Any, config: Mapping[str, Any]) -> None:
    """Write the window and the rotary scaling to `writer`, a GGUFWriter."""
    # llama.cpp reads the window and leaves it out
    writer.add_sliding_window(int(config.get("sliding_window") or 0))
    writer.add_rope_freq_base(float(_rope(config)["rope_theta"]))
    writer.add_rope_scaling_orig_ctx_len(_original(config))
    if _rope(config)["rope_type"] in _LONG:
        writer.add_rope_scaling_attn_factors(_attention_factor(config))


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    found.setdefault("rope_theta", config.get("rope_theta", 10000.0))
    found["rope_type"] = found.get("rope_type") or found.get("type") or "default"
    return found


def _original(config: Mapping[str, Any]) -> int:
    own = _rope(config).get("original_max_position_embeddings") or config.get("original_max_position_embeddings")
    return int(own or config["max_position_embeddings"])


def _attention_factor(config: Mapping[str, Any]) -> float:
    """What queries and keys are multiplied by.

    Source: Transformers' `_compute_longrope_parameters`.
    """
    rope, original = _rope(config), _original(config)
    if rope.get("attention_factor") is not None:
        return float(rope["attention_factor"])
    scale = float(rope.get("factor") or int(config["max_position_embeddings"]) / original)
    return math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0
