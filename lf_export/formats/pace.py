"""How long quantizing takes on this machine: work counted from shapes, over rates that are measured in a moment."""

import time
from collections.abc import Callable, Hashable, Iterable, Sequence

import torch

from lf_export.quant.moments import Moments

# A product of this many rows, inputs and outputs: some ten milliseconds, large enough to run as a layer's do.
_ROWS, _WIDTH = 512, 2048
# The weight whose rounding is timed, [out, in]: the width that every block size divides, few columns against rows.
_SHAPE = (1024, 512)
_TOKENS = 2 * _SHAPE[1]
_REPEATS = 3

Shapes = Iterable[Sequence[tuple[int, int]]]
"""Of each input the shapes [out, in] of the linears that read it."""


class Pace:
    """How fast this machine computes, each rate measured when it is first asked for.

    Args:
        threads: to compute with.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._products: dict[torch.dtype, float] = {}
        self._rounding: dict[Hashable, float] = {}

    def rate(self, dtype: torch.dtype = torch.float32) -> float:
        """Floating-point operations of matrix products per second."""
        if dtype not in self._products:
            torch.set_num_threads(self._threads)
            one, other = (torch.randn(rows, _WIDTH).to(dtype) for rows in (_ROWS, _WIDTH))
            self._products[dtype] = 2 * _ROWS * _WIDTH**2 / _fastest(lambda: one @ other)
        return self._products[dtype]

    def products(self, operations: float, dtype: torch.dtype = torch.float32) -> float:
        """Seconds of matrix products of so many floating-point operations."""
        return operations / self.rate(dtype)

    def rounding(self, key: Hashable, quantize: Callable[[torch.Tensor, Moments], object], weights: float) -> float:
        """Seconds to round so many weights as `quantize` rounds a small one; equal keys are measured once."""
        if key not in self._rounding:
            torch.set_num_threads(self._threads)
            generator = torch.Generator().manual_seed(0)
            W = torch.randn(_SHAPE, generator=generator)
            moments = Moments.zeros(_SHAPE[1])
            moments.add(torch.randn(_TOKENS, _SHAPE[1], generator=generator))
            self._rounding[key] = _fastest(lambda: quantize(W, moments)) / W.numel()
        return weights * self._rounding[key]


def feedback_operations(shapes: Shapes, rounds: int = 1) -> float:
    """Floating-point operations of error feedback: n³/3 for each input's factor, out · n² for each linear and round."""
    return sum(group[0][1] ** 3 / 3 + rounds * sum(out * n * n for out, n in group) for group in shapes)


def _fastest(run: Callable[[], object]) -> float:
    """Seconds of the fastest of a few runs; the first warms up."""
    seconds = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
