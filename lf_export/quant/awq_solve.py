"""AWQ of the linears that share an input, judged on held-out rows; what scaling does not help goes without, by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from lf_export.quant.awq import quantize_scaled, restored, search_scales
from lf_export.quant.fold import Fold
from lf_export.quant.gptq import Quantized, rtn
from lf_export.quant.grid import Scheme
from lf_export.quant.judge import Judge, JudgedOn, too_few_tokens
from lf_export.quant.moments import HeldOut, Moments

Method = Literal["awq", "clip", "rtn"]


@dataclass(frozen=True)
class AwqLinear:
    """A quantized linear and what is known about its damage.

    Attributes:
        quantized: the integers and their grid, of the weight as it is stored: scaled.
        method: `awq`: scaled and clipped; `clip`: clipped only; `rtn`: rounded to nearest between the extremes.
        error: Σ w ‖(W − Ŵ) x‖² / Σ w ‖W x‖² of what is stored, scales undone.
        rtn_error: the same for rounding to nearest without scales.
        judged_on: whether x were held-out rows or, where there were none, the calibration's own moments.
        reason: why it is not what was asked for, None where it is.
    """

    quantized: Quantized
    method: Method
    error: float
    rtn_error: float
    judged_on: JudgedOn
    reason: str | None


@dataclass(frozen=True)
class AwqGroup:
    """The linears of a group, and what their input's maker is divided by.

    Attributes:
        linears: by name.
        divisors: fp32 [elements of the fold], exact for what is stored; None where the input is not scaled.
        stored: the maker's tensor after the division, None where nothing is stored or nothing changes.
        exponent: the a of the scales, None without.
    """

    linears: dict[str, AwqLinear]
    divisors: torch.Tensor | None = None
    stored: torch.Tensor | None = None
    exponent: float | None = None


def quantize_awq(
    weights: Mapping[str, torch.Tensor],
    moments: Moments,
    heldout: HeldOut | None,
    scheme: Scheme,
    fold: Fold | None = None,
    divided: Mapping[str, torch.Tensor] | None = None,
) -> AwqGroup:
    """Quantize the linears of a group with one scale for each channel of their input.

    Args:
        weights: name → W [out, in] fp32, all with the same input.
        moments: of that input, before any scale.
        heldout: rows that the moments have not seen; None or empty: judged on the moments themselves.
        scheme: bits, groups and the rest.
        fold: what makes the input; None: it cannot be scaled.
        divided: name → what the rows of a weight are divided by, [out], where its outputs are another group's input.
    """
    problem = _Problem(weights, moments, heldout, scheme, divided or {})
    distrust = too_few_tokens(moments)
    if distrust is not None:
        return problem.rounded(distrust)
    found = None if fold is None else search_scales(problem.W, moments.H, fold, scheme)
    if fold is None or found is None or found.exponent is None:
        return problem.clipped(None)
    stored, divisors = fold.divide(found.divisors)
    quantized, losses = problem.scaled(divisors[fold.made_by])
    if not sum(losses.values()) < sum(problem.plain_losses.values()):
        return problem.clipped(f"scales of exponent {found.exponent:g} do not beat rounding on {problem.judge.on} rows")
    linears = {name: problem.linear(name, "awq", quantized[name], losses[name], None) for name in weights}
    return AwqGroup(linears, divisors, stored, found.exponent)


class _Problem:
    """One stacked weight, and the judge of what becomes of it."""

    def __init__(
        self,
        weights: Mapping[str, torch.Tensor],
        moments: Moments,
        heldout: HeldOut | None,
        scheme: Scheme,
        divided: Mapping[str, torch.Tensor],
    ) -> None:
        self.W = torch.cat(list(weights.values()))
        self.judge = Judge(moments, heldout)
        self._moments, self._scheme = moments, scheme
        stops = torch.tensor([len(weight) for weight in weights.values()]).cumsum(0).tolist()
        self._parts = dict(zip(weights, map(slice, [0, *stops[:-1]], stops), strict=True))
        rows = [divided.get(name, weight.new_ones(len(weight))) for name, weight in weights.items()]
        self._rows = torch.cat(rows).unsqueeze(1)
        self._divided = self.W / self._rows if divided else self.W  # as it is stored, but for the scales of its input
        self._energies = self._by_name(self.judge.per_output(self.W))
        # a grid is found for each row by itself, so dividing rows changes nothing of rounding but its last bits
        self._plain = rtn(self._divided, scheme)
        self.plain_losses = self._losses(self._plain, None)

    def scaled(self, s: torch.Tensor | None) -> tuple[dict[str, Quantized], dict[str, float]]:
        """W diag(s) quantized, and its losses."""
        quantized = quantize_scaled(self._divided, self._moments.H, s, self._scheme)
        return self._split(quantized), self._losses(quantized, s)

    def clipped(self, reason: str | None) -> AwqGroup:
        """No scales; clipped ranges where they beat the extremes."""
        quantized, losses = self.scaled(None)
        linears = {}
        for name, plain in self._split(self._plain).items():
            if losses[name] < self.plain_losses[name]:
                linears[name] = self.linear(name, "clip", quantized[name], losses[name], reason)
            else:
                why = f"clipped ranges do not beat rounding on {self.judge.on} rows"
                linears[name] = self.linear(name, "rtn", plain, self.plain_losses[name], why)
        return AwqGroup(linears)

    def rounded(self, reason: str) -> AwqGroup:
        """Rounding to nearest for all."""
        plain = self._split(self._plain)
        return AwqGroup(
            {name: self.linear(name, "rtn", plain[name], self.plain_losses[name], reason) for name in plain}
        )

    def linear(self, name: str, method: Method, quantized: Quantized, loss: float, reason: str | None) -> AwqLinear:
        """A linear with its loss against its energy."""
        whole = max(self._energies[name], 1e-30)
        return AwqLinear(quantized, method, loss / whole, self.plain_losses[name] / whole, self.judge.on, reason)

    def _losses(self, quantized: Quantized, s: torch.Tensor | None) -> dict[str, float]:
        return self._by_name(self.judge.per_output(self.W - restored(quantized, s).mul_(self._rows)))

    def _by_name(self, per_output: torch.Tensor) -> dict[str, float]:
        return {name: float(per_output[part].sum()) for name, part in self._parts.items()}

    def _split(self, quantized: Quantized) -> dict[str, Quantized]:
        return {name: quantized.rows(part.start, part.stop) for name, part in self._parts.items()}
