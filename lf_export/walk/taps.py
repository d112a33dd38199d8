"""Hooks on the linears of a running layer that take their inputs: into the moments, or aside to judge with."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch

from lf_export.quant.moments import HeldOut, Moments
from lf_export.walk.batches import Batch
from lf_export.walk.experts import Expert


@dataclass(frozen=True)
class _Rows:
    """Which rows of an input count: `fit` with `weights` (None: all one) in the moments, `heldout` with `roots`."""

    fit: torch.Tensor
    weights: torch.Tensor | None
    heldout: torch.Tensor
    roots: torch.Tensor


class _BatchRows:
    """The rows of a batch that count, of all of it and of those that an expert is given."""

    def __init__(self, batch: Batch, device: torch.device) -> None:
        (fit, weights), (heldout, roots) = batch.fit, batch.heldout
        self._size = batch.shape[0] * batch.shape[1]
        weights = None if weights is None else weights.to(device)
        self.all = _Rows(fit.to(device), weights, heldout.to(device), roots.to(device))

    def among(self, places: torch.Tensor) -> _Rows:
        """The rows of an input whose rows are those at `places` of the batch."""
        weights, roots = self._by_place[:, places]
        fit, heldout = weights.nonzero().squeeze(1), roots.nonzero().squeeze(1)
        return _Rows(fit, None if self.all.weights is None else weights[fit], heldout, roots[heldout])

    @cached_property
    def _by_place(self) -> torch.Tensor:
        """The weight and the root of every place, zero where it does not count, [2, places]."""
        found = torch.zeros(2, self._size, device=self.all.fit.device)
        found[0, self.all.fit] = 1.0 if self.all.weights is None else self.all.weights
        found[1, self.all.heldout] = self.all.roots
        return found


class Taps:
    """Hooks on the first linear of each group that add its input to the moments, padding left out.

    An expert is given some rows of the batch only, and enters with those of them that count.

    Args:
        module: the layer.
        groups: its linears; those of one group share their input.
        device: where it runs.

    Attributes:
        moments: by the first linear of each group.
    """

    def __init__(self, module: torch.nn.Module, groups: tuple[tuple[str, ...], ...], device: torch.device) -> None:
        self.moments: dict[str, Moments] = {}
        self._heldout: dict[str, list[torch.Tensor]] = {}
        self._module, self._groups, self._device = module, groups, device
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        for group in self._groups:
            self._stack.enter_context(self._tapped(group[0]))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def begin(self, batch: Batch) -> None:
        """Say which batch runs next."""
        self._rows = _BatchRows(batch, self._device)

    def heldout_rows(self, name: str) -> HeldOut:
        """What was set aside at the first linear of a group."""
        return HeldOut(torch.cat([torch.zeros(0, self.moments[name].width, device=self._device), *self._heldout[name]]))

    @contextmanager
    def _tapped(self, name: str) -> Iterator[None]:
        linear = self._module.get_submodule(name)
        parent = self._module.get_submodule(name.rpartition(".")[0])
        width = int(linear.in_features)  # type: ignore[arg-type]
        moments = self.moments[name] = Moments.zeros(width, self._device)
        heldout: list[torch.Tensor] = []
        self._heldout[name] = heldout

        def take(_: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
            X = inputs[0].reshape(-1, width)
            places = parent.places if isinstance(parent, Expert) else None
            rows = self._rows.all if places is None else self._rows.among(places)
            if len(rows.fit):
                moments.add(X[rows.fit], rows.weights)
            heldout.append(X[rows.heldout].float() * rows.roots.unsqueeze(1))

        handle = linear.register_forward_pre_hook(take)
        try:
            yield
        finally:
            handle.remove()
