"""Answers that a model writes at the same time: rows that join when there is room and leave when they end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lf_export.runtimes.caches import Part, merged


@dataclass
class Rows:
    """The model's side of answers under way.

    Attributes:
        tokens: the last token of each, [rows].
        positions: where it stands in its sequence, [rows, 1].
        mask: what it sees, [rows, t], 0 for padding on the left.
        cache: keys and values of those t positions.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    cache: Any

    @classmethod
    def merged(cls, parts: Sequence[tuple["Rows", Sequence[int]]]) -> "Rows":
        """The chosen rows of each part as one; first positions that none of them sees are dropped.

        The parts are used up.
        """
        chosen = [(part, torch.tensor(list(rows))) for part, rows in parts]
        masks = [part.mask[rows] for part, rows in chosen]
        starts = [int(mask.any(dim=0).int().argmax()) for mask in masks]
        masks = [mask[:, start:] for mask, start in zip(masks, starts, strict=True)]
        longest = max(mask.shape[1] for mask in masks)
        return cls(
            tokens=torch.cat([part.tokens[rows] for part, rows in chosen]),
            positions=torch.cat([part.positions[rows] for part, rows in chosen]),
            mask=torch.cat([torch.nn.functional.pad(mask, (longest - mask.shape[1], 0)) for mask in masks]),
            cache=merged([Part(part.cache, rows, start) for (part, rows), start in zip(chosen, starts, strict=True)]),
        )
