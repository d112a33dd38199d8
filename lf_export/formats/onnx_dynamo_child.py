"""The child that exports a model with torch's dynamo exporter; its one argument is JSON, as `onnx_dynamo` gives it.

The graph takes the new tokens, a mask of all tokens, the new tokens' positions, and the keys and values so far. It
gives logits, and keys and values with the new ones appended. Rows, new tokens and past tokens may be any number.
"""

import json
import sys
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AttentionInterface, AutoModelForCausalLM, DynamicCache

from lf_export.quant.ort import APPENDED, CACHE_KEY

_OPSET = 23  # the first with Attention, RotaryEmbedding and RMSNormalization
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
_ATTENTION = "grouped"


class DecoderGraph(torch.nn.Module):
    """A causal language model with its cache as plain tensors.

    Args:
        model: Transformers' own, with the attention of `_attend`.
        windows: how many tokens back each layer looks, itself included; None where it looks at all.
    """

    def __init__(self, model: Any, windows: Sequence[int | None]) -> None:
        super().__init__()
        self.model = model
        self._windows = windows
        types = getattr(model.config, "layer_types", None)
        # a model that has kinds of layers takes a mask for each kind, another one takes a mask
        self._kinds = dict(zip(types, windows, strict=True)) if types else None

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, position_ids: torch.Tensor, *past: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Logits [batch, new, vocabulary], and keys and values [batch, heads, past + new, width] of each layer.

        Args:
            input_ids: [batch, new].
            attention_mask: [batch, past + new], 0 where there is no token.
            position_ids: [batch, new].
            past: keys and values of each layer, [batch, heads, past, width].
        """
        cache = DynamicCache()
        for layer in range(len(past) // 2):
            cache.update(past[2 * layer], past[2 * layer + 1], layer)
        output = self.model(
            input_ids=input_ids,
            attention_mask=self._masks(input_ids.shape[1], attention_mask),
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
        )
        return (output.logits, *(part for layer in cache.layers for part in (layer.keys, layer.values)))

    def _masks(self, new: int, attention_mask: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        total = attention_mask.shape[1]
        seen = torch.arange(total)[None, :]
        sees = torch.arange(new)[:, None] + (total - new)
        causal = (seen <= sees)[None, None] & (attention_mask[:, None, None, :] > 0)

        def within(window: int | None) -> torch.Tensor:
            return causal if window is None else causal & (seen > sees - window)[None, None]

        if self._kinds is None:
            return within(self._windows[0])
        return {kind: within(window) for kind, window in self._kinds.items()}


def _attend(
    _: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **__: Any,
) -> tuple[torch.Tensor, None]:
    """Attention that becomes one node: query heads share keys and values without repeating them."""
    output = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=True
    )
    return output.transpose(1, 2).contiguous(), None


def export(model: str, graph: str, precision: str, windows: Sequence[int | None]) -> None:
    """Write the graph and its external data."""
    AttentionInterface.register(_ATTENTION, _attend)
    loaded = AutoModelForCausalLM.from_pretrained(
        model,
        dtype=_DTYPES[precision],
        attn_implementation=_ATTENTION,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
    )
    loaded.eval().requires_grad_(requires_grad=False)
    config = loaded.config
    layers, heads = config.num_hidden_layers, config.num_key_value_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    batch, new, before = 2, 3, 5  # all different, so that none is taken for another
    past = [torch.zeros(batch, heads, before, width, dtype=_DTYPES[precision]) for _ in range(2 * layers)]
    examples = (
        torch.ones(batch, new, dtype=torch.int64),
        torch.ones(batch, before + new, dtype=torch.int64),
        torch.arange(before, before + new).repeat(batch, 1),
        *past,
    )
    free = torch.export.Dim.DYNAMIC
    table, cache = {0: free, 1: free}, {0: free, 2: free}
    wrapper = DecoderGraph(loaded, windows)
    program = torch.export.export(
        wrapper, examples, dynamic_shapes=(table, table, table, tuple(cache for _ in past)), strict=False
    )
    kinds = [f"{layer}.{kind}" for layer in range(layers) for kind in ("key", "value")]
    exported = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=_OPSET,
        input_names=["input_ids", "attention_mask", "position_ids", *(f"past_key_values.{kind}" for kind in kinds)],
        output_names=["logits", *(f"present.{kind}" for kind in kinds)],
        verbose=False,
    )
    if exported is None:
        raise TypeError("the exporter gave nothing")
    _widen_norms(exported.model)
    exported.model.metadata_props[CACHE_KEY] = APPENDED
    exported.save(graph, external_data=True)


def _widen_norms(model: Any) -> None:
    """Widen a norm's input to the type of its weight.

    The exporter leaves out the cast before a norm that computes in fp32 (Gemma's), which `RMSNormalization` allows.
    ONNX Runtime 1.32 has no kernel for two types, and what it puts in place of the node does not load.
    """
    import onnx_ir as ir  # noqa: PLC0415 - an extra

    for node in [each for each in model.graph if each.op_type == "RMSNormalization"]:
        inputs, scale = node.inputs[0], node.inputs[1]
        if inputs.dtype != scale.dtype:
            cast = ir.node("Cast", [inputs], {"to": scale.dtype})
            model.graph.insert_before(node, cast)
            node.replace_input_with(0, cast.outputs[0])


if __name__ == "__main__":
    export(**json.loads(sys.argv[1]))
