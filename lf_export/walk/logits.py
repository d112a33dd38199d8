"""A model's logits by Transformers' layers, with one layer in memory."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from lf_export.checkpoint.index import Checkpoint
from lf_export.quant.gptq import Quantized, dequantize
from lf_export.walk.families import family_of, num_layers
from lf_export.walk.weights import LayerWeights

_NORM = "model.norm.weight"
_LM_HEAD = "lm_head.weight"

# Rows of the output layer that are read at once.
_ROWS = 16384


def logits_of(
    checkpoint: Checkpoint,
    ids: Sequence[int],
    *,
    layer: Callable[[str], Mapping[str, torch.Tensor]] | None = None,
    head: Quantized | None = None,
    prepare: Callable[[str, torch.nn.Module], None] | None = None,
) -> npt.NDArray[np.float32]:
    """The logits after each of `ids`, in fp32, without a cache: [len(ids), vocabulary].

    Args:
        checkpoint: the model: embedding, final norm, output layer, config.
        ids: token ids.
        layer: a layer's prefix → its tensors in fp32, by relative name; None: the checkpoint's own.
        head: the output layer's integers, where it is quantized.
        prepare: called with each layer's prefix and module before it runs.

    Raises:
        InputError: an architecture that the walk does not know, or weights that are not finite.
    """
    # transformers takes seconds to import and 100 MB, also for those that import the formats and compare no logits
    from lf_export.walk.decoder import Decoder  # noqa: PLC0415

    device = torch.device("cpu")
    decoder = Decoder(checkpoint, family_of(checkpoint.config), device)
    with torch.no_grad():
        hidden = decoder.embed(torch.tensor(list(ids))).unsqueeze(0)
        for index in range(num_layers(checkpoint.config)):
            prefix = decoder.family.prefix(index)
            weights = LayerWeights(checkpoint, prefix, device) if layer is None else layer(prefix)
            module = decoder.build(index, weights, torch.float32)
            if prepare is not None:
                prepare(prefix, module)
            hidden = decoder.run(module, index, hidden)
        return _head(checkpoint, _normed(checkpoint, hidden[0]), head).numpy()


def head_name(checkpoint: Checkpoint) -> str:
    """The tensor that the output layer multiplies by."""
    return family_of(checkpoint.config).embedding if checkpoint.tied else _LM_HEAD


def _normed(checkpoint: Checkpoint, hidden: torch.Tensor) -> torch.Tensor:
    """The final norm, RMSNorm in every family; Gemma's multiplies by 1 + weight."""
    weight = checkpoint.read(_NORM, dtype=torch.float32) + family_of(checkpoint.config).norm_offset
    scale = torch.rsqrt(hidden.square().mean(-1, keepdim=True) + float(checkpoint.config["rms_norm_eps"]))
    return weight * (hidden * scale)


def _head(checkpoint: Checkpoint, hidden: torch.Tensor, head: Quantized | None) -> torch.Tensor:
    name = head_name(checkpoint)
    rows = checkpoint.info(name).shape[0]
    parts = []
    for start in range(0, rows, _ROWS):
        block = slice(start, min(start + _ROWS, rows))
        if head is None:
            W = checkpoint.read(name, rows=block, dtype=torch.float32)
        else:
            W = dequantize(head.rows(block.start, block.stop))
        parts.append(hidden @ W.t())
    return torch.cat(parts, dim=1)
