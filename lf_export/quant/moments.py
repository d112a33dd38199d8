"""Weighted second moments of a linear layer's input: what GPTQ, AWQ and an importance matrix are made from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

# Rows of H that one matrix product updates, from its diagonal block to the right edge: the smaller, the less of the
# lower triangle is computed in vain; the larger, the better the product runs.
_BLOCK = 256


@dataclass
class Moments:
    """The weighted second moment of the input x of one or several linears, H = Σ w_t x_t x_tᵀ.

    Rows arrive in batches by `add`; `H` completes the symmetric matrix once.

    Attributes:
        upper: the upper triangle of H, [n, n] fp32; below the diagonal blocks it holds zeros until `H` is asked.
        weight_sum: Σ w_t.
        count: tokens with a weight above zero.
        abs_sum: Σ w_t |x_t|, [n] fp32 (AWQ's activation scale).
    """

    upper: torch.Tensor
    abs_sum: torch.Tensor
    weight_sum: float = 0.0
    count: int = 0
    _complete: bool = field(default=True, repr=False)

    @classmethod
    def zeros(cls, width: int, device: torch.device | str = "cpu") -> "Moments":
        """Moments of no token of a `width`-wide input."""
        return cls(torch.zeros(width, width, device=device), torch.zeros(width, device=device))

    @property
    def width(self) -> int:
        """The width n of the input."""
        return self.upper.shape[0]

    def add(self, X: torch.Tensor, weights: torch.Tensor | None = None) -> None:
        """Add tokens: `X` is [t, n], `weights` is [t], above zero (None: all one).

        Rows in bf16 are multiplied as such, in half the time, and each batch's products rounded to bf16 before they are
        summed in fp32. On SmolLM2-135M the held-out error of 4-bit layers is the same to three digits.
        """
        if X.dtype != torch.bfloat16:
            X = X.float()
        if weights is None:
            self.weight_sum += X.shape[0]
            self.abs_sum += X.abs().sum(0, dtype=torch.float32)
        else:
            weights = weights.to(self.abs_sum)
            self.weight_sum += float(weights.sum(dtype=torch.float64))
            self.abs_sum.addmv_(X.abs().float().t(), weights)
            X = X * weights.sqrt().to(X.dtype).unsqueeze(1)
        self.count += X.shape[0]
        self._complete = False
        for start in range(0, self.width, _BLOCK):
            stop = min(start + _BLOCK, self.width)
            rows, left, right = self.upper[start:stop, start:], X[:, start:stop].t(), X[:, start:]
            if X.dtype == torch.float32:
                rows.addmm_(left, right)
            else:
                rows += left @ right

    @property
    def H(self) -> torch.Tensor:  # noqa: N802
        """Σ w_t x_t x_tᵀ, symmetric, [n, n] fp32. A view: copy it before changing it."""
        if not self._complete:
            for start in range(0, self.width, _BLOCK):
                stop = min(start + _BLOCK, self.width)
                self.upper[stop:, start:stop] = self.upper[start:stop, stop:].t()
                block = self.upper[start:stop, start:stop]
                block.copy_(block.triu() + block.triu(1).t())  # a matrix product is symmetric only up to rounding
            self._complete = True
        return self.upper

    def importance(self) -> torch.Tensor:
        """The weighted mean square of each input channel, diag(H) / Σ w, [n] (llama.cpp's importance matrix)."""
        return self.upper.diagonal() / max(self.weight_sum, 1e-30)


@dataclass(frozen=True)
class HeldOut:
    """Input rows of samples that no moment has seen: they judge what was calibrated.

    Attributes:
        X: [r, n] fp32, each row scaled by the square root of its weight; r may be 0.
    """

    X: torch.Tensor

    def energy(self, W: torch.Tensor) -> float:
        """Σ w_t ‖W x_t‖² for W [out, n], in fp64."""
        return float((self.X @ W.t()).square().sum(dtype=torch.float64))


class Pool:
    """What several inputs of the same space saw together: the experts of a layer, which share out its tokens.

    Nothing is added up until it is asked for.

    Args:
        moments: of each input.
        heldout: of each input.
        times: how often each token is among them.
    """

    def __init__(self, moments: Sequence[Moments], heldout: Sequence[HeldOut], times: int) -> None:
        self._moments, self._heldout, self._times = moments, heldout, times

    @cached_property
    def moments(self) -> Moments:
        """Of all inputs; a token counts once."""
        total = Moments.zeros(self._moments[0].width, self._moments[0].upper.device)
        for each in self._moments:
            total.upper += each.upper
            total.abs_sum += each.abs_sum
            total.weight_sum += each.weight_sum
            total.count += each.count
        total.upper /= self._times
        total.abs_sum /= self._times
        total.weight_sum /= self._times
        total.count //= self._times
        total._complete = False  # noqa: SLF001 - some of the triangles that were added may have been mirrored
        return total

    @cached_property
    def heldout(self) -> HeldOut:
        """Of all inputs: about as many rows as there are tokens among them."""
        return HeldOut(torch.cat([each.X for each in self._heldout])[:: self._times])
