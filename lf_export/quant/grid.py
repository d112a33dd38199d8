"""Grids: which values a group of weights may take, found by a clipping search weighted by the input's moments."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

BITS = (2, 3, 4, 8)

# Shares of a group's largest magnitude that the clipping search tries as the grid's end. The first spares a symmetric
# grid at 4 bits the half step that it lacks at its upper end. Measured on SmolLM2-135M: eight are as good as twenty.
_SHRINK = tuple(1.06 - 0.06 * step for step in range(8))

# Elements that one step of the search works on: few enough for a few megabytes of work, enough for several threads to
# share without waiting for each other (two threads took half the time at 2^20 that they took at 2^17).
_CHUNK = 1 << 20

# The smallest scale: above fp16's smallest normal number, so that no kernel flushes it to zero.
_TINY = 2.0**-14


@dataclass(frozen=True)
class Scheme:
    """How a linear is quantized, in the words of the checkpoints' own config keys.

    Attributes:
        bits: 2, 3, 4 or 8.
        group_size: input columns that share a scale and a zero; -1: the whole row.
        sym: the zero is the middle of the range.
        desc_act: store groups in the order of activation (g_idx is not monotone).
        act_order: quantize columns in the order of activation; groups stay in place unless `desc_act`.
        clip_search: choose each group's range by its error weighted with diag(H), not by its extremes.
        damp_percent: what is added to diag(H), as a share of its mean.
    """

    bits: int = 4
    group_size: int = 128
    sym: bool = True
    desc_act: bool = False
    act_order: bool = True
    clip_search: bool = True
    damp_percent: float = 0.01

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise ValueError(f"bits is {self.bits}, expected one of {BITS}")

    @property
    def maxq(self) -> int:
        """The largest stored integer."""
        return (1 << self.bits) - 1

    def columns(self, width: int) -> int:
        """The size of a group of a `width`-wide input."""
        size = width if self.group_size == -1 else self.group_size
        if size < 1 or width % size:
            raise ValueError(f"group_size {self.group_size} does not divide a width of {width}")
        return size


@dataclass(frozen=True)
class Grid:
    """Scales and zeros of a weight: a stored integer q stands for (q − zero) · scale.

    Attributes:
        scales: [groups, out] fp32 that hold fp16 values, above zero.
        zeros: [groups, out] fp32 that hold integers from 1 to maxq. Zero itself is left out: the GPTQ v1 layout stores
            zero − 1, which kernels read back without a carry only from 0.
    """

    scales: torch.Tensor
    zeros: torch.Tensor


def find_grid(Wt: torch.Tensor, importance: torch.Tensor | None, scheme: Scheme) -> Grid:
    """The grid of a weight, from its extremes or, with `importance`, by the clipping search.

    The search takes, for each group and output, the range that minimizes Σ_i h_i (w_i − ŵ_i)², with h the importance of
    each input column, for example diag(H); or, with e = w − ŵ, eᵀ H_g e with H_g the group's own block of H.

    Args:
        Wt: the weight, transposed, [in, out] fp32; groups are runs of rows.
        importance: of each input column, [in], or the blocks [groups, size, size], or None for the extremes themselves.
        scheme: bits, group size and symmetry.
    """
    size = scheme.columns(Wt.shape[0])
    grouped = Wt.view(-1, size, Wt.shape[1])  # [groups, size, out]
    low, high = torch.aminmax(grouped, dim=1)
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    if importance is None:
        return Grid(*_ends(low, high, scheme))
    h = importance.view(-1, 1, size) if importance.ndim == 1 else importance
    scales, zeros = torch.empty_like(low), torch.empty_like(low)
    for part in _chunks(grouped.shape):
        scales[part], zeros[part] = _search(grouped[part], h[part], low[part], high[part], scheme)
    return Grid(scales, zeros)


def nearest(Wt: torch.Tensor, grid: Grid, scheme: Scheme) -> torch.Tensor:
    """The stored integers nearest to a weight [in, out], as uint8 [in, out]."""
    size = scheme.columns(Wt.shape[0])
    scales, zeros = grid.scales.unsqueeze(1), grid.zeros.unsqueeze(1)
    q = torch.round(Wt.view(-1, size, Wt.shape[1]) / scales).add_(zeros).clamp_(0, scheme.maxq)
    return q.to(torch.uint8).view(Wt.shape)


def _chunks(shape: torch.Size) -> Iterator[slice]:
    step = max(1, _CHUNK // (shape[1] * shape[2]))
    for start in range(0, shape[0], step):
        yield slice(start, start + step)


def _ends(low: torch.Tensor, high: torch.Tensor, scheme: Scheme) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales (rounded to fp16) and zeros for ranges [low, high] that hold zero."""
    if scheme.sym:
        half = 2.0 ** (scheme.bits - 1)
        scales = torch.maximum(high, -low) / (scheme.maxq / 2)
        return _storable(scales), torch.full_like(scales, half)
    scales = _storable((high - low) / scheme.maxq)
    return scales, torch.round(-low / scales).clamp_(1, scheme.maxq)


def _storable(scales: torch.Tensor) -> torch.Tensor:
    return scales.clamp(min=_TINY, max=65504.0).half().float()


def _search(
    W: torch.Tensor, h: torch.Tensor, low: torch.Tensor, high: torch.Tensor, scheme: Scheme
) -> tuple[torch.Tensor, torch.Tensor]:
    # W [groups, size, out], h [groups, 1 or size, size], low and high [groups, out]
    best = torch.full_like(low, torch.inf)
    best_scales, best_zeros = torch.ones_like(low), torch.ones_like(low)
    work = torch.empty_like(W)
    for shrink in _SHRINK:
        scales, zeros = _ends(low * shrink, high * shrink, scheme)
        scale = scales.unsqueeze(1)
        torch.mul(W, scale.reciprocal(), out=work).round_()
        if scheme.sym:
            half = 2 ** (scheme.bits - 1)
            work.clamp_(-half, scheme.maxq - half)
        else:
            work.clamp_(-zeros.unsqueeze(1), (scheme.maxq - zeros).unsqueeze(1))
        work.mul_(scale).sub_(W)
        error = _weighted(h, work)
        better = error < best
        best = torch.where(better, error, best)
        best_scales = torch.where(better, scales, best_scales)
        best_zeros = torch.where(better, zeros, best_zeros)
    return best_scales, best_zeros


def _weighted(h: torch.Tensor, errors: torch.Tensor) -> torch.Tensor:
    """The loss of each group and output, [groups, out]; may overwrite the errors [groups, size, out]."""
    if h.shape[1] == 1:
        return torch.bmm(h, errors.square_()).squeeze(1)
    return torch.bmm(h, errors).mul_(errors).sum(1)
