"""A mixture of experts with a linear for every matrix of every expert, under the names that checkpoints give them.

Transformers holds the experts of a layer in two tensors of three dimensions, and multiplies all of them at once. What a
single expert sees of the calibration data is seen at linears of its own.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import one_hot

from lf_export.walk.families import Experts


class Expert(torch.nn.Module):
    """One gated feed-forward.

    Attributes:
        places: while it runs, where the rows that it is given lie among all rows of the batch, int64 [rows].
    """

    places: torch.Tensor | None = None

    def __init__(
        self, names: Experts, width: int, inner: int, activation: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        super().__init__()
        self._names, self._activation = names, activation
        for name in (names.gate, names.up):
            self.add_module(name, torch.nn.Linear(width, inner, bias=False))
        self.add_module(names.down, torch.nn.Linear(inner, width, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The output for rows [rows, width]."""
        names = self._names
        gate, up, down = (self.get_submodule(name) for name in (names.gate, names.up, names.down))
        output: torch.Tensor = down(self._activation(gate(x)) * up(x))
        return output

    @contextmanager
    def at(self, places: torch.Tensor) -> Iterator[None]:
        """Say where the rows of the next call come from."""
        self.places = places
        try:
            yield
        finally:
            self.places = None


class RoutedExperts(torch.nn.ModuleList):
    """The experts of a layer, called as transformers calls its own: each sees the rows that the router sends it."""

    def forward(self, hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """The weighted sum of the chosen experts' outputs.

        Args:
            hidden: [rows, width].
            chosen: which experts, int64 [rows, experts per token].
            weights: what each counts, [rows, experts per token].
        """
        output = torch.zeros_like(hidden)
        sent = one_hot(chosen, num_classes=len(self)).permute(2, 0, 1)  # [experts, rows, experts per token]
        for number in sent.sum(dim=(1, 2)).nonzero().flatten().tolist():
            places, slots = torch.where(sent[number])
            expert = self[number]
            assert isinstance(expert, Expert)  # noqa: S101 - nothing else is put in
            with expert.at(places):
                found = expert(hidden[places])
            output.index_add_(0, places, (found * weights[places, slots, None]).to(output.dtype))
        return output


def separate(layer: torch.nn.Module, names: Experts) -> None:
    """Give a decoder layer of transformers experts that can be looked at, and the names of the checkpoint.

    Args:
        layer: on meta: its experts' tensors are dropped.
        names: of the layer's family.
    """
    block = layer.get_submodule("mlp")
    fused: Any = block.get_submodule("experts")
    count, width, inner = fused.down_proj.shape  # [experts, out, in]
    with torch.device("meta"):
        experts = [Expert(names, width, inner, fused.act_fn) for _ in range(count)]
    block.add_module("experts", RoutedExperts(experts))
    if names.block != "mlp":
        del layer.mlp
        layer.add_module(names.block, block)
        layer.__dict__["mlp"] = block  # the name by which `forward` calls it, which is no module's name any more
