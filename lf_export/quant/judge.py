"""Which of two roundings of a weight is kept: each linear is judged by itself, on rows the moments have not seen."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from lf_export.quant.moments import HeldOut, Moments

# Fewer tokens than this share of an input's width say too little about its directions.
_TOKENS_PER_WIDTH = 1 / 16
# For error feedback, whose correlations are shrunk in proportion, fewer suffice. Measured on SmolLM2-135M with its
# feed-forward as eight experts (benchmarks/few_rows.py): from a 64th of the width on, an expert's own tokens serve it
# better than those of all experts do.
FEEDBACK_TOKENS_PER_WIDTH = 1 / 64

_FEWEST = 4

JudgedOn = Literal["held-out", "calibration", "weights"]


class Judge:
    """Σ w ‖D x‖² of a difference D [out, n], for each output, on held-out rows or on H; Σ D² where there is no token.

    Attributes:
        on: which of the three.
    """

    on: JudgedOn

    def __init__(self, moments: Moments, heldout: HeldOut | None) -> None:
        self._heldout = heldout if heldout is not None and heldout.X.shape[0] else None
        self._moments = moments
        self.on = "held-out" if self._heldout is not None else "calibration" if moments.count else "weights"

    def per_output(self, D: torch.Tensor) -> torch.Tensor:
        """The loss of each output, [out] fp64."""
        if self._heldout is not None:
            return (D @ self._heldout.X.t()).square_().sum(1, dtype=torch.float64)
        if not self._moments.count:
            return D.square().sum(1, dtype=torch.float64)
        return (D @ self._moments.H).mul_(D).sum(1, dtype=torch.float64)


@dataclass(frozen=True)
class Comparison:
    """The two roundings of one linear.

    Attributes:
        part: its rows in the stacked weight.
        plain_error: Σ w ‖(W − Ŵ) x‖² / Σ w ‖W x‖² of the rounding that needs no calibration.
        calibrated_error: the same of the calibrated one, None where there is none.
        reason: why the plain one is kept, None where it is not.
    """

    part: slice
    plain_error: float
    calibrated_error: float | None
    reason: str | None

    @property
    def fell_back(self) -> bool:
        """Whether the plain rounding is kept."""
        return self.calibrated_error is None or self.reason is not None

    @property
    def error(self) -> float:
        """Of the rounding that is kept."""
        return self.plain_error if self.calibrated_error is None or self.fell_back else self.calibrated_error


def stacked(weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Weights [out, in] with the same input as one, along `out`; not a copy where there is one."""
    return next(iter(weights.values())) if len(weights) == 1 else torch.cat(list(weights.values()))


def compare(
    weights: Mapping[str, torch.Tensor],
    W: torch.Tensor,
    plain: Callable[[], torch.Tensor],
    calibrated: Callable[[], torch.Tensor] | None,
    judge: Judge,
    reason: str | None,
    rival: str,
) -> dict[str, Comparison]:
    """Judge each linear of a group.

    Args:
        weights: name → W [out, in], all with the same input.
        W: the same, stacked.
        plain: makes what they are rounded without calibration, stacked; the result may be overwritten. Made when it is
            judged, so that the two are not in memory at once.
        calibrated: the same with it, None where it gave nothing.
        judge: of the input.
        reason: why it gave nothing.
        rival: whose error the plain one's is, for the reason why it is kept.
    """
    energy, plain_loss = judge.per_output(W), judge.per_output(plain().sub_(W))
    loss = None if calibrated is None else judge.per_output(calibrated().sub_(W))
    found: dict[str, Comparison] = {}
    start = 0
    for name, weight in weights.items():
        part = slice(start, start + weight.shape[0])
        start = part.stop
        whole = max(float(energy[part].sum()), 1e-30)
        plain_error = float(plain_loss[part].sum()) / whole
        error = None if loss is None else float(loss[part].sum()) / whole
        why = reason
        if error is not None and not error < plain_error:
            why = f"its error is not below {rival} ({error:.3g}, {plain_error:.3g})"
        found[name] = Comparison(part, plain_error, error, why)
    return found


def too_few_tokens(moments: Moments, share: float = _TOKENS_PER_WIDTH) -> str | None:
    """Why moments are not trusted, None where they are.

    Args:
        moments: of the input.
        share: of its width, how many tokens are enough; never fewer than four.
    """
    needed = max(_FEWEST, int(moments.width * share))
    if moments.count >= needed:
        return None
    return f"only {moments.count} tokens for a width of {moments.width}, expected {needed}"
