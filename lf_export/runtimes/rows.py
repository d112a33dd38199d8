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
        tokens: the last token of each, [rows]; the cache does not hold it yet.
        starts: where each begins in the cache, [rows].
        lengths: how many positions of each the cache holds, [rows]; the last token stands there in its sequence.
        cache: keys and values. What lies outside a row's own positions is padding.
    """

    tokens: torch.Tensor
    starts: torch.Tensor
    lengths: torch.Tensor
    cache: Any

    @classmethod
    def merged(cls, parts: Sequence[tuple["Rows", Sequence[int]]]) -> "Rows":
        """The chosen rows of each part as one, their last positions in line; the parts are used up."""
        chosen = [(part, torch.tensor(list(rows))) for part, rows in parts]
        lengths = torch.cat([part.lengths[rows] for part, rows in chosen])
        return cls(
            tokens=torch.cat([part.tokens[rows] for part, rows in chosen]),
            starts=lengths.max() - lengths,
            lengths=lengths,
            cache=merged(
                [
                    Part(part.cache, *(values.tolist() for values in (rows, part.starts[rows], part.lengths[rows])))
                    for part, rows in chosen
                ]
            ),
        )

    def mask(self) -> torch.Tensor:
        """What the last tokens see of merged rows: [rows, positions with their own], 0 for the padding on the left."""
        positions = int(self.starts[0] + self.lengths[0]) + 1
        return (torch.arange(positions) >= self.starts[:, None]).long()

    def take(self, tokens: torch.Tensor) -> None:
        """Go on to the next tokens: the cache holds those that were the last."""
        self.tokens, self.lengths = tokens, self.lengths + 1
