"""The tensors of one decoder layer, read from the checkpoint when they are asked for."""

from collections.abc import Iterator, Mapping

import torch

from lf_export.checkpoint.index import Checkpoint
from lf_export.checkpoint.reader import check_finite
from lf_export.errors import InputError

# Buffers that old checkpoints stored; transformers computes them.
_RECOMPUTED = "rotary_emb.inv_freq"


class LayerWeights(Mapping[str, torch.Tensor]):
    """Relative tensor name → fp32 tensor; each is read and checked once and kept as long as this mapping.

    Reading a tensor raises InputError when it has a NaN or an infinity.
    """

    def __init__(self, checkpoint: Checkpoint, prefix: str, device: torch.device) -> None:
        start = f"{prefix}."
        self._checkpoint = checkpoint
        self._device = device
        self._names = {
            name.removeprefix(start): name
            for name in checkpoint.tensors
            if name.startswith(start) and not name.endswith(_RECOMPUTED)
        }
        self._read: dict[str, torch.Tensor] = {}
        if not self._names:
            raise InputError(f"{checkpoint.root}: no tensor of {prefix}, which config.json counts among the layers")

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._read:
            full = self._names[name]
            tensor = self._checkpoint.read(full, dtype=torch.float32)
            check_finite(tensor, full, self._checkpoint.info(full).file)
            self._read[name] = tensor.to(self._device)
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
