"""The folder that the builder reads: the model as it is, or with its linears as integers in the layout of GPTQ.

The builder takes a GPTQ folder's integers, scales and zeros as they are into `MatMulNBits` nodes. AWQ's go the same
way: integers on a grid are integers on a grid, and its scales are in the norms and biases that are stored beside them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch

from lf_export.checkpoint.carry import copy_companions
from lf_export.checkpoint.index import Checkpoint, open_checkpoint
from lf_export.formats.linears import gptq_entries, group_size_for, linear_names
from lf_export.formats.shards import Shards
from lf_export.quant.gptq import Quantized, dequantize
from lf_export.quant.grid import Scheme
from lf_export.quant.nbits import BLOCK_SIZES
from lf_export.quant.pack import STORED, pack, unpack
from lf_export.walk.weights import LayerWeights


def block_size_for(checkpoint: Checkpoint, wanted: int | Literal["auto"]) -> int:
    """The group size that `wanted` stands for, which must be a block size of `MatMulNBits` too.

    Raises:
        InputError: no block size divides every width, or `wanted` does not.
    """

    def unpackable(_: int, in_width: int) -> str | None:
        smallest = min(BLOCK_SIZES)
        return f"{in_width} inputs, expected a multiple of {smallest}" if in_width % smallest else None

    return group_size_for(checkpoint, wanted, unpackable, whole_rows=False)


class ImportFolder:
    """A GPTQ folder in the making that only the builder reads.

    Args:
        checkpoint: the model.
        folder: a folder that is made here, where a killed run did not leave it, and removed by the caller.
        scheme: of the integers.
    """

    def __init__(self, checkpoint: Checkpoint, folder: Path, scheme: Scheme) -> None:
        self._checkpoint, self._folder, self._scheme = checkpoint, folder, scheme
        self._linears = set(linear_names(checkpoint))
        folder.mkdir(exist_ok=True)
        self._shards = Shards(folder, list(gptq_entries(checkpoint, dict.fromkeys(self._linears, scheme))))
        self._stored: Checkpoint | None = None

    def put(self, name: str, quantized: Quantized) -> None:
        """Write the linear `name`."""
        for part, tensor in pack(quantized).items():
            self._shards.put(f"{name}.{part}", tensor)

    def put_plain(self, name: str, tensor: torch.Tensor) -> None:
        """Write a tensor that is not quantized, but not the model's own either: a norm or a bias that took a scale."""
        self._shards.put(name, tensor)

    def snapshot(self) -> list[str]:
        """The tensors that were written."""
        return self._shards.snapshot()

    def restore(self, written: Sequence[str]) -> None:
        """Take what `snapshot` gave."""
        self._shards.restore(written)

    def finish(self) -> None:
        """Add what is not quantized, the config and the tokenizer."""
        written = set(self._shards.snapshot())
        for name, info in self._checkpoint.tensors.items():
            if name.removesuffix(".weight") not in self._linears and name not in written:
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
        stored = self._folder_again()
        return unpack({part: stored.read(f"{name}.{part}") for part in STORED}, self._scheme.bits)

    def layer(self, prefix: str) -> Mapping[str, torch.Tensor]:
        """The tensors of a layer in fp32, by relative name: its linears as their integers say, the rest as put."""
        stored, weights = self._folder_again(), {}
        for name in LayerWeights(self._checkpoint, prefix, torch.device("cpu")):
            module = f"{prefix}.{name}".removesuffix(".weight")
            if module in self._linears and name.endswith(".weight"):
                weights[name] = dequantize(self.quantized(module))
            else:
                weights[name] = stored.read(f"{prefix}.{name}", dtype=torch.float32)
        return weights

    def _folder_again(self) -> Checkpoint:
        if self._stored is None:
            self._stored = open_checkpoint(self._folder)
        return self._stored


def plain_layer(checkpoint: Checkpoint, prefix: str) -> Mapping[str, torch.Tensor]:
    """The tensors of a layer in fp32, by relative name."""
    return dict(LayerWeights(checkpoint, prefix, torch.device("cpu")))
