"""What makes the input of each group of linears, so that a scale of the input can be undone where it is made."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class InputMaker:
    """The module whose outputs are, up to a factor that no scale of a channel touches, the input of a group.

    A norm multiplies each channel by its weight. A linear makes a channel with one of its rows: up_proj's rows are
    multiplied by the activated gate, v_proj's are averaged over the positions.

    Attributes:
        module: by relative name.
        norm: whether it is a norm; else it is a linear, and its *last* rows make the input (in a fused linear they are
            the values, or up).
        offset: what a norm adds to its weight before it multiplies (1 in Gemma).
        heads: whether rows are those of key-value heads, each read by several query heads in turn.
    """

    module: str
    norm: bool = False
    offset: float = 0.0
    heads: bool = False


# The first linear of a group → what makes its input.
_SEPARATE = {
    "self_attn.q_proj": InputMaker("input_layernorm", norm=True),
    "self_attn.o_proj": InputMaker("self_attn.v_proj", heads=True),
    "mlp.gate_proj": InputMaker("post_attention_layernorm", norm=True),
    "mlp.down_proj": InputMaker("mlp.up_proj"),
}
_FUSED = {
    "self_attn.qkv_proj": InputMaker("input_layernorm", norm=True),
    "self_attn.o_proj": InputMaker("self_attn.qkv_proj", heads=True),
    "mlp.gate_up_proj": InputMaker("post_attention_layernorm", norm=True),
    "mlp.down_proj": InputMaker("mlp.gate_up_proj"),
}
# Gemma normalizes what attention gives too, so the feed-forward's norm has another name.
_GEMMA = _SEPARATE | {
    "self_attn.q_proj": InputMaker("input_layernorm", norm=True, offset=1.0),
    "mlp.gate_proj": InputMaker("pre_feedforward_layernorm", norm=True, offset=1.0),
}

# `model_type` → the makers of its layers. A family without a line is quantized without scales of its inputs.
INPUT_MAKERS: dict[str, Mapping[str, InputMaker]] = {
    "llama": _SEPARATE,
    "mistral": _SEPARATE,
    "qwen2": _SEPARATE,
    "qwen3": _SEPARATE,
    "phi3": _FUSED,
    "gemma3_text": _GEMMA,
}


def input_makers(config: Mapping[str, Any]) -> Mapping[str, InputMaker]:
    """The makers of a model's layers, by the first linear of each group; empty for a family that is not known."""
    return INPUT_MAKERS.get(str(config.get("model_type")), {})


def made_by(maker: InputMaker, width: int, elements: int, config: Mapping[str, Any]) -> torch.Tensor:
    """Which element of the maker (of a norm's weight, or row of a linear) makes each input channel, int64 [width].

    Args:
        maker: of the input.
        width: of the input.
        elements: how many elements the maker has.
        config: of the model, for its heads.
    """
    if not maker.heads:
        return torch.arange(width) + (elements - width)
    query = int(config["num_attention_heads"])
    key_value = int(config.get("num_key_value_heads") or query)
    head = width // query
    rows = torch.arange(key_value * head).view(key_value, 1, head).expand(-1, query // key_value, -1)
    return rows.reshape(-1) + (elements - key_value * head)
