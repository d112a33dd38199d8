"""Which decoders the walk knows, and which of their linears share an input."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lf_export.errors import InputError


@dataclass(frozen=True)
class Experts:
    """How a mixture of experts lies in a checkpoint: each expert has linears of its own, and sees its own tokens.

    Attributes:
        block: the module that holds the router and `experts.N`, by relative name.
        gate: of an expert's linears the one whose output is activated.
        up: the one that reads the same input.
        down: the one that reads their product.
        counts: the keys of config.json that may say how many experts a layer has.
        count: how many it has; 0 until a config has said so.
        chosen: how many of them each token is sent to.
        dense: layers that have an ordinary feed-forward instead.
    """

    block: str
    gate: str
    up: str
    down: str
    counts: tuple[str, ...]
    count: int = 0
    chosen: int = 0
    dense: frozenset[int] = frozenset()

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """The linears of all experts; those of a group share their input."""
        experts = [f"{self.block}.experts.{number}" for number in range(self.count)]
        return tuple(
            tuple(f"{expert}.{name}" for name in group)
            for expert in experts
            for group in ((self.gate, self.up), (self.down,))
        )

    def of(self, config: Mapping[str, Any]) -> "Experts":
        """The experts of a model.

        Raises:
            InputError: config.json does not say how many there are, or how many each token is sent to.
        """
        count = next((config[key] for key in self.counts if key in config), None)
        chosen = config.get("num_experts_per_tok")
        if not isinstance(count, int) or not isinstance(chosen, int) or not 0 < chosen <= count:
            raise InputError(
                f"config.json: {self.counts[0]} is {count!r} and num_experts_per_tok {chosen!r}, "
                "expected a number of experts and how many of them each token is sent to"
            )
        step = int(config.get("decoder_sparse_step") or 1)
        without = set(config.get("mlp_only_layers") or ())
        dense = frozenset(i for i in range(num_layers(config)) if i in without or (i + 1) % step)
        return replace(self, count=count, chosen=chosen, dense=dense)


@dataclass(frozen=True)
class Family:
    """A decoder architecture: where its parts lie in a checkpoint, and which linears read the same input.

    Attributes:
        model_type: as in config.json.
        groups: the linears of a layer without experts, by relative module name; those of one group share their input,
            in the order in which the layer runs them.
        layers: what precedes a layer's index in tensor names.
        embedding: the tensor of the token embedding.
        norm_offset: what norms add to their weights before they multiply.
        experts: where layers have experts instead of the feed-forward among `groups`, None where they never do.
    """

    model_type: str
    groups: tuple[tuple[str, ...], ...]
    layers: str = "model.layers"
    embedding: str = "model.embed_tokens.weight"
    norm_offset: float = 0.0
    experts: Experts | None = None

    def experts_at(self, index: int) -> Experts | None:
        """The experts of layer `index`, None where it has none."""
        return None if self.experts is None or index in self.experts.dense else self.experts

    def groups_at(self, index: int) -> tuple[tuple[str, ...], ...]:
        """The linears of layer `index`; those of one group share their input."""
        experts = self.experts_at(index)
        if experts is None:
            return self.groups
        return tuple(group for group in self.groups if group[0].startswith("self_attn.")) + experts.groups

    def linears_at(self, index: int) -> tuple[str, ...]:
        """Every linear of layer `index`, in order."""
        return tuple(name for group in self.groups_at(index) for name in group)

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
        Family(
            "mixtral", _SEPARATE, experts=Experts("block_sparse_moe", "w1", "w3", "w2", counts=("num_local_experts",))
        ),
        Family(
            "qwen3_moe",
            _SEPARATE,
            # transformers 5 writes the second key, the checkpoints of Qwen have the first
            experts=Experts("mlp", "gate_proj", "up_proj", "down_proj", counts=("num_experts", "num_local_experts")),
        ),
    )
}


def family_of(config: Mapping[str, Any]) -> Family:
    """The family of a model, by the `model_type` of its config.

    Raises:
        InputError: the architecture is not one that the walk knows; the message lists those. A mixture of experts whose
            config.json does not say how many.
    """
    model_type = config.get("model_type")
    if isinstance(model_type, str) and model_type in FAMILIES:
        family = FAMILIES[model_type]
        return family if family.experts is None else replace(family, experts=family.experts.of(config))
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
