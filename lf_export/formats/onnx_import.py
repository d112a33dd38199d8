"""The folder that the builder reads: the model as it is, or with its linears as GPTQ integers.

The builder takes a GPTQ folder's integers, scales and zeros as they are into `MatMulNBits` nodes.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from lf_export.checkpoint.carry import copy_companions
from lf_export.checkpoint.index import Checkpoint, open_checkpoint
from lf_export.errors import InputError
from lf_export.formats.shards import Entry, Shards
from lf_export.quant.gptq import Quantized, dequantize
from lf_export.quant.grid import Scheme
from lf_export.quant.nbits import BLOCK_SIZES
from lf_export.quant.pack import STORED, pack, unpack
from lf_export.walk.families import family_of, num_layers
from lf_export.walk.weights import LayerWeights

# What `auto` tries, the coarsest first.
_AUTO_SIZES = (128, 64, 32, 16)


def linear_names(checkpoint: Checkpoint) -> Iterator[str]:
    """The modules whose weights are quantized, in order."""
    family = family_of(checkpoint.config)
    for index in range(num_layers(checkpoint.config)):
        for linear in family.linears:
            yield f"{family.prefix(index)}.{linear}"


def group_size_for(checkpoint: Checkpoint, wanted: int | str) -> int:
    """The group size that `wanted` stands for.

    Raises:
        InputError: no block size of `MatMulNBits` divides every width, or `wanted` does not.
    """
    widths: dict[int, str] = {}
    for name in linear_names(checkpoint):
        widths.setdefault(checkpoint.info(f"{name}.weight").shape[1], name)
    fitting = [size for size in BLOCK_SIZES if all(width % size == 0 for width in widths)]
    chosen = next((size for size in _AUTO_SIZES if size in fitting), None) if wanted == "auto" else wanted
    if chosen in fitting:
        return int(chosen)
    shown = ", ".join(f"{width} ({name})" for width, name in widths.items())
    raise InputError(
        f"group_size {wanted} does not divide every input width: {shown}",
        f"expected one of {', '.join(map(str, fitting))}" if fitting else "expected widths that are multiples of 16",
    )


class ImportFolder:
    """A GPTQ folder in the making that only the builder reads.

    Args:
        checkpoint: the model.
        folder: a folder that is made here and removed by the caller.
        scheme: of the integers.
    """

    def __init__(self, checkpoint: Checkpoint, folder: Path, scheme: Scheme) -> None:
        self._checkpoint, self._folder, self._scheme = checkpoint, folder, scheme
        self._linears = set(linear_names(checkpoint))
        folder.mkdir()
        self._shards = Shards(folder, list(self._entries()))
        self._stored: Checkpoint | None = None

    def put(self, name: str, quantized: Quantized) -> None:
        """Write the linear `name`."""
        for part, tensor in pack(quantized).items():
            self._shards.put(f"{name}.{part}", tensor)

    def finish(self) -> None:
        """Add what is not quantized, the config and the tokenizer."""
        for name, info in self._checkpoint.tensors.items():
            if name.removesuffix(".weight") not in self._linears:
                self._shards.copy(name, info)
        self._shards.finish()
        config = {
            "quant_method": "gptq",
            "checkpoint_format": "gptq",
            "bits": self._scheme.bits,
            "group_size": self._scheme.group_size,
            "sym": self._scheme.sym,
            "desc_act": False,
        }
        copy_companions(self._checkpoint.root, self._folder, lambda base: {**base, "quantization_config": config})

    def quantized(self, name: str) -> Quantized:
        """The linear `name` as it was put, read back from the folder."""
        if self._stored is None:
            self._stored = open_checkpoint(self._folder)
        return unpack({part: self._stored.read(f"{name}.{part}") for part in STORED}, self._scheme.bits)

    def layer(self, prefix: str) -> Mapping[str, torch.Tensor]:
        """The tensors of a layer in fp32, by relative name, its linears as their integers say."""
        weights = dict(LayerWeights(self._checkpoint, prefix, torch.device("cpu")))
        for name in weights:
            module = f"{prefix}.{name}".removesuffix(".weight")
            if module in self._linears and name.endswith(".weight"):
                weights[name] = dequantize(self.quantized(module))
        return weights

    def _entries(self) -> Iterator[Entry]:
        for name, info in self._checkpoint.tensors.items():
            module = name.removesuffix(".weight")
            if module not in self._linears:
                yield Entry(name, info.dtype, tuple(info.shape))
                continue
            rows, width = info.shape
            groups, bits = width // self._scheme.columns(width), self._scheme.bits
            yield Entry(f"{module}.qweight", "I32", (width * bits // 32, rows))
            yield Entry(f"{module}.qzeros", "I32", (groups, rows * bits // 32))
            yield Entry(f"{module}.scales", "F16", (groups, rows))
            yield Entry(f"{module}.g_idx", "I32", (width,))


def plain_layer(checkpoint: Checkpoint, prefix: str) -> Mapping[str, torch.Tensor]:
    """The tensors of a layer in fp32, by relative name."""
    return dict(LayerWeights(checkpoint, prefix, torch.device("cpu")))
