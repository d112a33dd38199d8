"""One tensor of a merge, block of rows by block of rows, in buffers that stay in the processor's cache."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from lf_export.checkpoint.adapter import LoraModule
from lf_export.checkpoint.header import TensorInfo
from lf_export.checkpoint.reader import TORCH_DTYPES, bytes_of, check_finite, read_into
from lf_export.errors import InputError, StepError

_BLOCK_ELEMENTS = 1 << 20
"""4 MiB of float32: measured fastest (128 to 512 rows) on two cores with 1 MiB of L2 each."""

_ROW_STEP = 64
"""Blocks are multiples of 64 rows and the last one takes the remainder. For a few rows a BLAS may choose another
kernel, and so another order of additions: measured over 500 shapes, products of 64 rows and more equal the whole
product bit for bit with one thread and with two, products of 1 to 7 rows do not."""

_SAMPLED_ROWS = 8


@dataclass
class Proof:
    """The difference |W' - formula in float64| that came closest to what rounding explains, and where."""

    deviation: float = 0.0
    bound: float = 0.0
    tensor: str = ""
    ratio: float = -1.0

    def check(self, name: str, got: torch.Tensor, want: torch.Tensor, allowed: torch.Tensor) -> None:
        """Compare some rows of a result with the formula.

        Raises:
            StepError: a difference is larger than rounding explains.
        """
        off = (got.double() - want).abs()
        ratio = float((off / allowed).max())
        if not ratio <= 1.0:
            raise StepError(
                f"{name}: verification failed: merged weights are {float(off.max()):.3g} away from W + scaling * B @ A",
                "the memory or the linear algebra library of this machine gives wrong results",
            )
        if ratio > self.ratio:
            where = int((off / allowed).argmax())
            self.ratio, self.tensor = ratio, name
            self.deviation, self.bound = float(off.view(-1)[where]), float(allowed.view(-1)[where])

    def take(self, other: "Proof") -> None:
        """Keep the other's difference if it comes closer to its bound."""
        if other.ratio > self.ratio:
            self.deviation, self.bound = other.deviation, other.bound
            self.tensor, self.ratio = other.tensor, other.ratio


class Rows:
    """Reads, merges and casts tensors in blocks; its buffers are used again for each block and each tensor."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.dtype], torch.Tensor] = {}

    def of(
        self, info: TensorInfo, modules: Sequence[LoraModule], out_dtype: torch.dtype, proof: Proof
    ) -> Iterator[torch.Tensor]:
        """The blocks of the tensor with all modules merged in, in `out_dtype`; each is valid until the next.

        Raises:
            InputError: a weight is NaN or infinite, a result overflows `out_dtype`, or the file cannot be read.
            StepError: the first rows are not what the formula gives.
        """
        dtype = TORCH_DTYPES[info.dtype]
        between = torch.promote_types(dtype, out_dtype)
        wide = torch.promote_types(between, torch.float32)
        factors = [(*module.factors(wide), module.scaling) for module in modules]
        rows, columns = info.shape if modules else (info.numel, 1)
        if not info.numel:
            return
        try:
            handle = os.open(info.file, os.O_RDONLY)
        except OSError as error:
            raise InputError(f"{info.file}: {info.name}: cannot be read: {error.strerror}") from error
        try:
            for first, stop in pairwise(_edges(rows, columns)):
                raw = self._read(handle, info, first * columns, stop - first, columns)
                total = self._take("sum", wide, stop - first, columns).copy_(raw)
                for number, (a, b, scaling) in enumerate(factors, 1):
                    delta = self._take("delta", wide, stop - first, columns)
                    torch.mm(b[first:stop], a, out=delta)
                    total.add_(delta.mul_(scaling))
                    if between != wide and number < len(factors):
                        total.copy_(self._take("out", between, stop - first, columns).copy_(total))
                result = total
                if out_dtype != wide:
                    result = self._take("out", out_dtype, stop - first, columns).copy_(total)
                _check_range(info, raw, total, out_dtype)
                if factors and first == 0:
                    few = slice(0, _SAMPLED_ROWS)
                    proof.check(info.name, result[few], *_formula(raw[few], factors, between, out_dtype))
                yield result
        finally:
            os.close(handle)

    def _read(self, handle: int, info: TensorInfo, first: int, rows: int, columns: int) -> torch.Tensor:
        dtype = TORCH_DTYPES[info.dtype]
        raw = self._take("raw", dtype, rows, columns)
        try:
            read_into(handle, info.start + first * dtype.itemsize, bytes_of(raw), info)
        except OSError as error:
            raise InputError(f"{info.file}: {info.name}: cannot be read: {error.strerror}") from error
        return raw

    def _take(self, name: str, dtype: torch.dtype, rows: int, columns: int) -> torch.Tensor:
        """A [rows, columns] view of a buffer that is made once and grows when it must."""
        key = (name, dtype)
        size = rows * columns
        if key not in self._buffers or self._buffers[key].numel() < size:
            self._buffers[key] = torch.empty(max(size, 2 * _BLOCK_ELEMENTS), dtype=dtype)
        return self._buffers[key][:size].view(rows, columns)


def _edges(rows: int, columns: int) -> list[int]:
    """Where blocks begin and end: multiples of `_ROW_STEP` rows, the last block up to twice as high."""
    step = max(_ROW_STEP, _BLOCK_ELEMENTS // max(1, columns) // _ROW_STEP * _ROW_STEP)
    return [*range(0, max(rows - step, 0) + 1, step), rows] if rows else [0]


def _check_range(info: TensorInfo, raw: torch.Tensor, total: torch.Tensor, out_dtype: torch.dtype) -> None:
    """Raise where a value of the sum is NaN, infinite, or too large for the dtype that it is written in."""
    low, high = torch.aminmax(total)  # NaN anywhere makes both NaN
    limit = torch.finfo(out_dtype).max
    if -limit <= float(low) and float(high) <= limit:
        return
    check_finite(raw, info.name, info.file)
    overflow = int((~torch.isfinite(total.to(out_dtype))).sum())
    if overflow:
        raise InputError(
            f"{info.file}: {info.name}: {overflow:,} merged values do not fit {str(out_dtype).removeprefix('torch.')}",
            "merge with --dtype float32 or bfloat16",
        )


def _formula(
    raw: torch.Tensor,
    factors: Sequence[tuple[torch.Tensor, torch.Tensor, float]],
    between: torch.dtype,
    out_dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor]:
    """W + Σ scaling B A in float64 for the first rows, and how far rounding may lead from it, element by element."""
    want = raw.double()
    size = want.abs()  # the sum of magnitudes bounds every partial sum
    rounding = torch.zeros_like(want)
    for a, b, scaling in factors:
        part_a, part_b = a.double(), b[: len(raw)].double()
        want = want + scaling * (part_b @ part_a)
        magnitude = abs(scaling) * (part_b.abs() @ part_a.abs())
        size = size + magnitude
        # a product of `rank` terms in the wide dtype, its scaling, the sum, and one rounding to the weight's dtype
        rounding += torch.finfo(a.dtype).eps * (len(a) + 2) * size + torch.finfo(between).eps * size
    rounding += torch.finfo(out_dtype).eps * size + torch.finfo(out_dtype).smallest_normal
    return want, rounding
