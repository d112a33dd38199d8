"""GPTQ: rounding that makes each column pay for the errors of the columns before it.

Frantar et al., "GPTQ: accurate post-training quantization for generative pre-trained transformers",
https://arxiv.org/abs/2210.17323, in the equivalent form of Chee et al., "QuIP" (LDLQ, theorem 6),
https://arxiv.org/abs/2307.13304: with H = (I + U) D (I + U)ᵀ, U strictly upper,

    ŵ_k = Q( w_k + Σ_{j<k} (w_j − ŵ_j) U_jk )

which needs one Cholesky factor of H and no inverse.
"""

from dataclasses import dataclass

import torch

from lf_export.quant.grid import Grid, Scheme, find_grid, nearest

# Columns that are rounded one by one before their errors are carried on by a matrix product.
_BLOCK = 64

# How often the damping is multiplied by ten before the Cholesky factor is given up.
_RETRIES = 3


class NotPositiveError(ArithmeticError):
    """H has no Cholesky factor, whatever damping was tried."""


@dataclass(frozen=True)
class Quantized:
    """A quantized weight: w[o, i] = (q[o, i] − zeros[o, g]) · scales[o, g] with g = g_idx[i].

    Attributes:
        q: uint8 [out, in] (a transposed view of [in, out], the order in which it is packed).
        scales: fp16 [out, groups].
        zeros: uint8 [out, groups], from 1 to 2^bits − 1.
        g_idx: int32 [in], the group of each input column.
        bits: of each integer.
    """

    q: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor
    g_idx: torch.Tensor
    bits: int

    def rows(self, start: int, stop: int) -> "Quantized":
        """The outputs `start` to `stop`, as a view."""
        return Quantized(self.q[start:stop], self.scales[start:stop], self.zeros[start:stop], self.g_idx, self.bits)


@dataclass(frozen=True)
class ColumnGrid:
    """The values that the columns of a weight may take: (code − zero) · scale, or codebook[code] · scale.

    Attributes:
        scales: [groups, out] fp32 of any sign; under a scale of zero every code stands for zero.
        zeros: [groups, out] fp32 that hold the code of zero; not used with a codebook.
        groups: which group each column takes, [in] in the weight's own order.
        lowest: the smallest code.
        highest: the largest code.
        codebook: what codes stand for where they are not evenly spaced, ascending, [highest + 1].
    """

    scales: torch.Tensor
    zeros: torch.Tensor
    groups: torch.Tensor
    lowest: int = 0
    highest: int = 15
    codebook: torch.Tensor | None = None


@dataclass(frozen=True)
class Factor:
    """What GPTQ needs to know of H, made once for all the weights that share it.

    Attributes:
        order: the order in which columns are rounded, [n].
        lower: Uᵀ in that order, [n, n] fp32: row k holds what column k takes from the columns before it.
        importance: how much an error in each column costs, [n], in the weight's own order: the geometric mean of its
            diag(H), what the error costs alone, and its D, what it costs when all later columns make up for it.
        damp: the damping that it took, as a share of the mean of diag(H).
        dead: inputs that were zero on every token; their columns are rounded to nearest and touch no other.
    """

    order: torch.Tensor
    lower: torch.Tensor
    importance: torch.Tensor
    damp: float
    dead: int


def factorize(H: torch.Tensor, scheme: Scheme, shrinkage: float = 0.0) -> Factor:
    """Order, damp and factor H [n, n].

    Args:
        H: the second moment of the input.
        scheme: damping and order.
        shrinkage: a share of diag(H) that is added to it: how much the correlations are distrusted.

    Raises:
        NotPositiveError: no damping up to 1000 times `damp_percent` makes H positive definite.
    """
    diagonal = H.diagonal().clone()
    if not bool(torch.isfinite(diagonal).all()):
        raise NotPositiveError("diag(H) has NaN or Inf")
    dead = diagonal <= 0
    mean = float(diagonal.mean(dtype=torch.float64))
    by_activation = scheme.act_order or scheme.desc_act
    n = H.shape[0]
    order = torch.argsort(diagonal, descending=True, stable=True) if by_activation else torch.arange(n, device=H.device)
    # H reversed = L Lᵀ makes H = R Rᵀ with R upper, so R = (I + U) √D without an inverse.
    backward = order.flip(0)
    reversed_H = H.index_select(0, backward).index_select(1, backward)
    reversed_diagonal = diagonal[backward].masked_fill(dead[backward], mean or 1.0) * (1 + shrinkage)
    damp = scheme.damp_percent
    for _ in range(_RETRIES + 1):
        reversed_H.diagonal().copy_(reversed_diagonal + damp * (mean or 1.0))
        L, failed = torch.linalg.cholesky_ex(reversed_H)
        if not int(failed) and bool(torch.isfinite(L.diagonal()).all()):
            # matrices of a wide layer are the walk's largest: never more of them at once than the factoring takes
            del reversed_H
            roots = L.diagonal().clone()  # √D, reversed
            lower = L.div_(roots).flip(0, 1)
            del L
            roots = roots.flip(0)
            importance = torch.empty_like(diagonal).index_copy_(0, order, diagonal[order].sqrt() * roots)
            return Factor(order, lower.t().contiguous(), importance, damp, int(dead.sum()))
        damp *= 10
    raise NotPositiveError(f"no Cholesky factor with damping up to {damp / 10:g}")


def gptq(W: torch.Tensor, factor: Factor, scheme: Scheme) -> Quantized:
    """Quantize W [out, in] fp32 against a factor of its input's H.

    Several weights that share an input are solved at once when they are stacked along `out`: rows do not
    touch each other.
    """
    order = factor.order
    importance = factor.importance if scheme.clip_search else None
    Wt = W.t().contiguous()
    places = torch.arange(len(order), device=W.device)
    if scheme.desc_act:  # groups are runs in the order of rounding
        grid = find_grid(Wt.index_select(0, order), None if importance is None else importance[order], scheme)
        places = torch.empty_like(order).index_copy_(0, order, places)
    else:
        grid = find_grid(Wt, importance, scheme)
    g_idx = places // scheme.columns(W.shape[1])
    q = round_columns(Wt, factor, ColumnGrid(grid.scales, grid.zeros, g_idx, highest=scheme.maxq))
    return _stored(q, grid, g_idx, scheme)


def rtn(W: torch.Tensor, scheme: Scheme) -> Quantized:
    """Round W [out, in] to nearest on the grid of its extremes: what calibration has to beat."""
    Wt = W.t().contiguous()
    grid = find_grid(Wt, None, scheme)
    g_idx = torch.arange(W.shape[1], device=W.device) // scheme.columns(W.shape[1])
    return _stored(nearest(Wt, grid, scheme), grid, g_idx, scheme)


def dequantize(quantized: Quantized) -> torch.Tensor:
    """The weight that the integers stand for, [out, in] fp32, exact."""
    # in the order in which it is stored, [in, out], where a group's scales are contiguous rows
    steps = quantized.q.t().float()
    steps -= quantized.zeros.t().float().index_select(0, quantized.g_idx)
    steps *= quantized.scales.t().float().index_select(0, quantized.g_idx)
    return steps.t()


def _stored(q: torch.Tensor, grid: Grid, g_idx: torch.Tensor, scheme: Scheme) -> Quantized:
    return Quantized(
        q=q.t(),
        scales=grid.scales.t().half(),
        zeros=grid.zeros.t().to(torch.uint8),
        g_idx=g_idx.to(torch.int32),
        bits=scheme.bits,
    )


def round_columns(Wt: torch.Tensor, factor: Factor, grid: ColumnGrid) -> torch.Tensor:
    """Round the rows of Wt [in, out] one after the other in the factor's order, each paying for those before it.

    The loop runs once per column and is bound by the calls, not by the arithmetic: five operations on
    prepared views and nothing else.

    Returns:
        The codes, uint8 [in, out], in the weight's own order.
    """
    lower, order = factor.lower, factor.order
    Wt = Wt.index_select(0, order)
    n, out = Wt.shape
    codes = torch.empty(n, out, dtype=torch.uint8, device=Wt.device)
    errors = torch.empty_like(Wt)  # row j: w_j − ŵ_j
    scales, inverses = grid.scales.unbind(0), torch.where(grid.scales == 0, 0, 1 / grid.scales).unbind(0)
    lows, highs = (grid.lowest - grid.zeros).unbind(0), (grid.highest - grid.zeros).unbind(0)
    book = None if grid.codebook is None else _Codebook(grid.codebook, out)
    groups = grid.groups[order].tolist()
    target, block_steps = Wt.new_empty(_BLOCK, out), Wt.new_empty(_BLOCK, out)
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        size = stop - start
        torch.addmm(Wt[start:stop], lower[start:stop, :start], errors[:start], out=target[:size])
        block_errors = errors[start:stop]
        before = [block_errors[:j].t() for j in range(size)]
        takes = [row[start : start + j] for j, row in enumerate(lower[start:stop].unbind(0))]
        rows = zip(
            target[:size].unbind(0), Wt[start:stop].unbind(0), block_errors.unbind(0), block_steps[:size].unbind(0),
            before, takes, groups[start:stop], strict=True,
        )  # fmt: skip
        for t, w, e, r, errors_before, take, g in rows:
            t.addmv_(errors_before, take)
            torch.mul(t, inverses[g], out=r)
            if book is None:
                r.round_().clamp_(lows[g], highs[g])
            else:
                book.snap_(r)
            torch.addcmul(w, r, scales[g], value=-1, out=e)
        steps = block_steps[:size]
        found = steps.add_(grid.zeros[groups[start:stop]]) if book is None else book.codes(steps)
        codes[order[start:stop]] = found.to(torch.uint8)
    return codes


class _Codebook:
    """Values that are not evenly spaced: rounding is a search between their midpoints."""

    def __init__(self, values: torch.Tensor, out: int) -> None:
        self._values, self._midpoints = values, (values[1:] + values[:-1]) / 2
        self._index = torch.empty(out, dtype=torch.int64, device=values.device)

    def codes(self, steps: torch.Tensor) -> torch.Tensor:
        return torch.bucketize(steps, self._midpoints)

    def snap_(self, r: torch.Tensor) -> None:
        torch.bucketize(r, self._midpoints, out=self._index)
        torch.take(self._values, self._index, out=r)
