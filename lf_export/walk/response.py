"""How much a layer's output changes when some of its linears have other weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from lf_export.walk.batches import Judged

if TYPE_CHECKING:  # transformers takes seconds to import
    from lf_export.walk.decoder import Decoder


class LayerResponse:
    """The mean over held-out tokens of ‖y' − y‖² / ‖y‖², y the layer's output, residual stream included.

    Relative to each token's own output, because the norm that reads it scales every token to the same length: what a
    change does to the layers after it depends on its share, not on its size. In fp32, where the change of an 8-bit
    weight stays far above the rounding. Nothing is computed, and nothing but the inputs is held, until it is called.

    Args:
        decoder: builds and runs the layer.
        index: which layer.
        weights: the layer's tensors in fp32; they are shared, not copied.
        judged: the samples and the rows that count.
        inputs: of each sample the layer's input, [t, hidden] fp32.
    """

    def __init__(
        self,
        decoder: Decoder,
        index: int,
        weights: Mapping[str, torch.Tensor],
        judged: Sequence[Judged],
        inputs: Sequence[torch.Tensor],
    ) -> None:
        self._decoder, self._index, self._weights = decoder, index, weights
        self._judged, self._inputs = judged, inputs
        self._module: torch.nn.Module | None = None
        self._before: list[torch.Tensor] = []

    def __call__(self, changed: Mapping[str, torch.Tensor]) -> float:
        """The change that `changed` makes, relative linear name → W [out, in]."""
        if self._module is None:
            self._module = self._decoder.build(self._index, self._weights, torch.float32)
            self._before = list(self._outputs(self._module))
        total = counted = 0.0
        with _replaced(self._module, changed):
            for sample, before, after in zip(self._judged, self._before, self._outputs(self._module), strict=True):
                weights = sample.weights.to(before.device, torch.float64)
                change = (after - before).square().sum(1, dtype=torch.float64)
                shares = change / before.square().sum(1, dtype=torch.float64).clamp(min=1e-30)
                total += float(shares @ weights)
                counted += float(weights.sum())
        return total / counted

    def _outputs(self, module: torch.nn.Module) -> Iterator[torch.Tensor]:
        """Of each sample the rows that count, [r, hidden]."""
        for sample, hidden in zip(self._judged, self._inputs, strict=True):
            output = self._decoder.run(module, self._index, hidden.unsqueeze(0))[0]
            yield output[sample.rows.to(output.device)]


@contextmanager
def _replaced(module: torch.nn.Module, changed: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """The module with other weights; the real ones are back after the block."""
    parameters = {name: module.get_parameter(f"{name}.weight") for name in changed}
    kept = {name: parameter.data for name, parameter in parameters.items()}
    try:
        for name, parameter in parameters.items():
            parameter.data = changed[name].contiguous()
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.data = kept[name]
