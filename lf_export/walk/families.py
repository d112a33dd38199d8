"""Which decoders the walk knows, and which of their linears share an input."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lf_export.errors import InputError


@dataclass(frozen=True)
class Family:
    """A decoder architecture: where its parts lie in a checkpoint, and which linears read the same input.

    Attributes:
        model_type: as in config.json.
        groups: the linears of a layer, by relative module name; those of one group share their input, in the order in
            which the layer runs them.
        layers: what precedes a layer's index in tensor names.
        embedding: the tensor of the token embedding.
        norm_offset: what norms add to their weights before they multiply.
    """

    model_type: str
    groups: tuple[tuple[str, ...], ...]
    layers: str = "model.layers"
    embedding: str = "model.embed_tokens.weight"
    norm_offset: float = 0.0

    @property
    def linears(self) -> tuple[str, ...]:
        """Every linear of a layer, in order."""
        return tuple(name for group in self.groups for name in group)

    def prefix(self, index: int) -> str:
        """What precedes the relative names of layer `index`."""
        return f"{self.layers}.{index}"


_SEPARATE = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)
_FUSED = (("self_attn.qkv_proj",), ("self_attn.o_proj",), ("mlp.gate_up_proj",), ("mlp.down_proj",))

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family("llama", _SEPARATE),
        Family("mistral", _SEPARATE),
        Family("qwen2", _SEPARATE),
        Family("qwen3", _SEPARATE),
        Family("phi3", _FUSED),
        Family("gemma3_text", _SEPARATE, norm_offset=1.0),
    )
}


def family_of(config: Mapping[str, Any]) -> Family:
    """The family of a model, by the `model_type` of its config.

    Raises:
        InputError: the architecture is not one that the walk knows; the message lists those.
    """
    model_type = config.get("model_type")
    if isinstance(model_type, str) and model_type in FAMILIES:
        return FAMILIES[model_type]
    close = difflib.get_close_matches(str(model_type), FAMILIES, n=1)
    raise InputError(
        f"config.json: model_type is {model_type!r}, expected one of {', '.join(FAMILIES)}",
        f"did you mean {close[0]}" if close else "a new architecture is one line in lf_export/walk/families.py",
    )


def num_layers(config: Mapping[str, Any]) -> int:
    """How many decoder layers a model has.

    Raises:
        InputError: config.json does not say.
    """
    count = config.get("num_hidden_layers")
    if not isinstance(count, int) or count < 1:
        raise InputError(f"config.json: num_hidden_layers is {count!r}, expected a number of layers")
    return count
