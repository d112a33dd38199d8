"""AWQ: scales of the input's channels that make the grid finer where the input is large.

Lin et al., "AWQ: activation-aware weight quantization for on-device LLM compression and acceleration",
https://arxiv.org/abs/2306.00978:

    Ŵ = Q(W diag(s)) diag(s)⁻¹,  s = m^a / w^(1−a),  a = argmin ‖(W − Ŵ) X‖²

with m the magnitude of each input channel and w that of each of W's columns. The loss is tr((W − Ŵ) H (W − Ŵ)ᵀ), so no
activations are kept: H says all of them. Q rounds to nearest on grids whose ranges are clipped by the same loss, each
group by its own block of H.
"""

from dataclasses import dataclass

import torch

from lf_export.quant.fold import Fold
from lf_export.quant.gptq import Quantized, dequantize
from lf_export.quant.grid import Scheme, find_grid, nearest

# What is tried for a, from the weights alone (0) to the input alone (1); the scale of 1 is tried beside them.
EXPONENTS = tuple(step / 10 for step in range(11))

# Outputs that the search looks at, evenly spread: with all of them the held-out error is the same to 1 %.
SEARCH_ROWS = 128

# Magnitudes below this share of their mean count as this much: a channel that was never used says nothing.
_LEAST = 1e-3

# The widest group whose block of H weighs the clipping search; beyond it diag(H) does.
_WIDEST_BLOCK = 256


@dataclass(frozen=True)
class Scales:
    """What a search found.

    Attributes:
        divisors: what the maker of the input is divided by, fp32 [elements of the fold].
        exponent: a, None where no scale at all served best.
    """

    divisors: torch.Tensor
    exponent: float | None


def search_scales(W: torch.Tensor, H: torch.Tensor, fold: Fold, scheme: Scheme) -> Scales:
    """The scales that lose least.

    Args:
        W: [out, in] fp32, all linears that share the input, stacked: their losses are summed.
        H: the second moment of the input, [in, in].
        fold: what makes the input.
        scheme: bits, group size, symmetry, and whether ranges are clipped.
    """
    sample = W[:: max(1, W.shape[0] // SEARCH_ROWS)]
    best = Scales(torch.ones(fold.elements, device=W.device), None)
    least = _loss(sample, H, None, scheme)
    for exponent, divisors in candidates(W, H, fold):
        loss = _loss(sample, H, divisors[fold.made_by], scheme)
        if loss < least:
            best, least = Scales(divisors, exponent), loss
    return best


def candidates(W: torch.Tensor, H: torch.Tensor, fold: Fold) -> list[tuple[float, torch.Tensor]]:
    """Each exponent and its divisors [elements], of which the smallest used times the largest used is one."""
    m = _relative(fold.shared(H.diagonal()).sqrt(), fold)
    w = _relative(fold.shared(W.abs().mean(0)), fold)
    used = torch.zeros(fold.elements, dtype=torch.bool, device=W.device).index_fill_(0, fold.made_by, value=True)
    found = []
    for a in EXPONENTS:
        s = m**a / w ** (1 - a)
        low, high = torch.aminmax(s[used])
        found.append((a, torch.where(used, s / (low * high).sqrt(), 1.0)))
    return found


def quantize_scaled(W: torch.Tensor, H: torch.Tensor, s: torch.Tensor | None, scheme: Scheme) -> Quantized:
    """Quantize W diag(s) to nearest, ranges clipped against diag(s)⁻¹ H diag(s)⁻¹, the moment of the scaled input."""
    Wt = W.t().contiguous() if s is None else W.t() * s.unsqueeze(1)
    size = scheme.columns(W.shape[1])
    grid = find_grid(Wt, _importance(H, s, size) if scheme.clip_search else None, scheme)
    return Quantized(
        q=nearest(Wt, grid, scheme).t(),
        scales=grid.scales.t().half(),
        zeros=grid.zeros.t().to(torch.uint8),
        g_idx=torch.arange(W.shape[1], dtype=torch.int32, device=W.device) // size,
        bits=scheme.bits,
    )


def restored(quantized: Quantized, s: torch.Tensor | None) -> torch.Tensor:
    """What a quantized W diag(s) stands for in the place of W: Q diag(s)⁻¹, [out, in] fp32."""
    stored = dequantize(quantized)
    return stored if s is None else stored.div_(s)


def _loss(W: torch.Tensor, H: torch.Tensor, s: torch.Tensor | None, scheme: Scheme) -> float:
    E = restored(quantize_scaled(W, H, s, scheme), s).sub_(W)
    return float((E @ H).mul_(E).sum(dtype=torch.float64))


def _relative(magnitudes: torch.Tensor, fold: Fold) -> torch.Tensor:
    """Magnitudes as multiples of their mean over the channels, none of them nearly zero."""
    mean = magnitudes[fold.made_by].mean().clamp(min=1e-30)
    return (magnitudes / mean).clamp(min=_LEAST)


def _importance(H: torch.Tensor, s: torch.Tensor | None, size: int) -> torch.Tensor:
    inverse = None if s is None else s.reciprocal()
    if size > _WIDEST_BLOCK:
        return H.diagonal().clone() if inverse is None else H.diagonal() * inverse.square()
    runs = H.view(H.shape[0] // size, size, -1, size)
    blocks = torch.stack([runs[g, :, g] for g in range(runs.shape[0])])
    if inverse is not None:
        blocks *= inverse.view(-1, size, 1) * inverse.view(-1, 1, size)
    return blocks
