"""GPTQ on the grids of llama.cpp's blocks: rounding errors are fed back through H, the file stays an ordinary GGUF.

llama.cpp's own quantizer chooses each block's scales and minima, with the importance matrix; then the codes are chosen
anew, column by column, each paying for the errors of those before it; then they are put into the blocks as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from lf_export.quant.ggml import GgmlType, quantize
from lf_export.quant.ggml_blocks import Decoded, decode, with_codes
from lf_export.quant.gptq import ColumnGrid, Factor, round_columns
from lf_export.quant.grid import Scheme
from lf_export.quant.judge import Judge, JudgedOn, compare, stacked
from lf_export.quant.moments import HeldOut, Moments, Pool
from lf_export.quant.solve import enough, trusted_factor


@dataclass(frozen=True)
class Compensated:
    """A weight in blocks and what is known about its damage.

    Attributes:
        data: uint8 [out, bytes of a row].
        method: `gptq`, or `imatrix` where the codes are llama.cpp's own.
        error: Σ w ‖(W − Ŵ) x‖² / Σ w ‖W x‖² of what is stored.
        imatrix_error: the same for llama.cpp's codes.
        gptq_error: the same for the compensated codes, None where there are none.
        judged_on: whether x were held-out rows or, where there were none, the calibration's own moments; without any
            token, the weights themselves.
        damp: the damping that was used, None for `imatrix`.
        dead: inputs that were zero on every token.
        reason: why it fell back, None where it did not.
        pooled: why it was calibrated, and judged, on more than its own tokens; None where it was not.
    """

    data: npt.NDArray[np.uint8]
    method: Literal["gptq", "imatrix"]
    error: float
    imatrix_error: float
    gptq_error: float | None
    judged_on: JudgedOn
    damp: float | None
    dead: int
    reason: str | None
    pooled: str | None = None


class Compensator:
    """Quantizes the weights that share an input, to any number of types, with one factor of its H.

    Args:
        moments: of the input.
        heldout: rows that the moments have not seen; None or empty: judged on the moments themselves.
        scheme: damping and order.
        threads: how many pieces llama.cpp's quantizer works on at a time.
        pool: what serves in their place where they are of too few tokens.
    """

    def __init__(
        self,
        moments: Moments,
        heldout: HeldOut | None,
        scheme: Scheme | None = None,
        threads: int = 1,
        pool: Pool | None = None,
    ) -> None:
        moments, heldout, self._pooled = enough(moments, heldout, pool)
        self._moments, self._scheme, self._threads = moments, scheme or Scheme(), threads
        self._judge = Judge(moments, heldout)

    @cached_property
    def _factor(self) -> tuple[Factor | None, str | None]:
        return trusted_factor(self._moments, self._scheme)

    def solve(
        self, weights: Mapping[str, torch.Tensor], kind: GgmlType, importance: npt.NDArray[np.float32] | None
    ) -> dict[str, Compensated]:
        """Quantize weights to one type: one stacked problem, each weight judged by itself.

        Args:
            weights: name → W [out, in] fp32, all with the same input, whose width the type's block divides.
            kind: a type of `ggml_blocks.LAYOUTS`.
            importance: the weight of each column's squared error for llama.cpp's choice of scales, [in].
        """
        W = stacked(weights)
        plain = quantize(W.numpy(), kind, importance, self._threads)
        decoded = decode(plain, kind)
        factor, reason = self._factor
        compensated = None
        if factor is not None:
            compensated = with_codes(plain, kind, compensated_codes(W, factor, decoded))
        restored = None if compensated is None else partial(_restored, compensated, kind)
        written = partial(_values, decoded)
        solved: dict[str, Compensated] = {}
        for name, found in compare(
            weights, W, written, restored, self._judge, reason, "that of llama.cpp's codes"
        ).items():
            solved[name] = Compensated(
                data=plain[found.part] if compensated is None or found.fell_back else compensated[found.part],
                method="imatrix" if found.fell_back else "gptq",
                error=found.error,
                imatrix_error=found.plain_error,
                gptq_error=found.calibrated_error,
                judged_on=self._judge.on,
                damp=None if factor is None or found.fell_back else factor.damp,
                dead=0 if factor is None else factor.dead,
                reason=found.reason,
                pooled=self._pooled,
            )
        return solved


def _values(decoded: Decoded) -> torch.Tensor:
    return torch.from_numpy(decoded.values())


def _restored(data: npt.NDArray[np.uint8], kind: GgmlType) -> torch.Tensor:
    return _values(decode(data, kind))


def compensated_codes(W: torch.Tensor, factor: Factor, decoded: Decoded) -> npt.NDArray[np.uint8]:
    """The codes of W [out, in] on the grids of `decoded`, by error feedback through the factor's H; uint8 [out, in]."""
    layout = decoded.layout
    scales = torch.from_numpy(decoded.scales).t().contiguous()
    Wt = W.t().contiguous()
    if decoded.minima is not None:  # the error of w on a grid with a minimum is that of w − minimum on one without
        minima = torch.from_numpy(decoded.minima).t()
        Wt = Wt - minima.repeat_interleave(layout.group, dim=0)
    grid = ColumnGrid(
        scales,
        zeros=scales.new_tensor(float(layout.zero)).expand_as(scales),
        groups=torch.arange(W.shape[1]) // layout.group,
        lowest=layout.lowest,
        highest=layout.highest,
        codebook=None if layout.codebook is None else torch.tensor(layout.codebook, dtype=torch.float32),
    )
    return np.ascontiguousarray(round_columns(Wt, factor, grid).t().numpy())
