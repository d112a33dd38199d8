"""A weight that is stored quantized, as the float tensor that it stands for: unpacked block by block as it is read."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from lf_export.checkpoint.header import TensorInfo

RowReader = Callable[[int, int], torch.Tensor]
"""Gives the rows from the first to the second number; the first is a multiple of 64."""


@dataclass(frozen=True, slots=True)
class PackedTensor(TensorInfo):
    """A weight [out, in] in `dtype` that other tensors stand for; `file`, `start` and `nbytes` are of its main one.

    `unpack` reads what is packed, which is small, and gives rows in float32, exact. They are rounded to `dtype` before
    anything is added: so a merge gives what it would give for the unpacked checkpoint.
    """

    unpack: Callable[[], RowReader] = field(kw_only=True, compare=False)

    @property
    def numel(self) -> int:
        """How many weights it has."""
        return math.prod(self.shape)
