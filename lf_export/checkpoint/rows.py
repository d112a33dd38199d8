"""One tensor of a merge, block of rows by block of rows, in buffers that stay in the processor's cache."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch

from lf_export.checkpoint.changes import Loaded, Precision
from lf_export.checkpoint.edits import Edit
from lf_export.checkpoint.header import TensorInfo
from lf_export.checkpoint.packed import PackedTensor
from lf_export.checkpoint.proof import Claim, Proof
from lf_export.checkpoint.reader import TORCH_DTYPES, bytes_of, check_finite, opened, read_errors, read_into
from lf_export.errors import InputError, StepError

_BLOCK_ELEMENTS = 1 << 20
"""4 MiB of float32: measured fastest (128 to 512 rows) on two cores with 1 MiB of L2 each."""

_ROW_STEP = 64
"""Blocks are multiples of 64 rows and the last one takes the remainder. For a few rows a BLAS may choose another
kernel, and so another order of additions: measured over 500 shapes, products of 64 rows and more equal the whole
product bit for bit with one thread and with two, products of 1 to 7 rows do not."""

_SAMPLED_ROWS = 8


class Rows:
    """Reads, merges and casts tensors in blocks; its buffers are used again for each block and each tensor."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.dtype], torch.Tensor] = {}

    def of(self, edit: Edit, out_dtype: torch.dtype, proof: Proof) -> Iterator[torch.Tensor]:
        """The blocks of the tensor with all changes made, in `out_dtype`; each is valid until the next.

        Raises:
            InputError: a weight is NaN or infinite, a result overflows `out_dtype`, or the file cannot be read.
            StepError: the first rows are not what the formula gives.
        """
        if not edit.source.numel:
            return
        precision, changes = self._load(edit, out_dtype)
        for first, raw, total in self._totals(edit, changes, precision, last=True):
            result = total
            if out_dtype != precision.wide:
                result = self._take("out", out_dtype, *total.shape).copy_(total)
            _check_range(edit.source, raw, total, out_dtype)
            if edit.changed and first == 0:
                few = slice(0, _SAMPLED_ROWS)
                proof.check(edit.name, result[few], _claim(raw[few], edit, changes, precision))
            yield result

    def check(self, edit: Edit, merged: TensorInfo, proof: Proof, seed: int) -> int:
        """Compare some rows of a merged tensor with the formula in float64; returns how many.

        The rows lie together, at a place that `seed` chooses; the first ones for a tensor that is not a matrix.

        Raises:
            InputError: a file cannot be read, or a weight is NaN or infinite.
            StepError: the rows are not what the formula gives.
        """
        if not edit.source.numel:
            return 0
        rows, columns = _matrix(edit)
        chosen = torch.randint(-(-rows // _ROW_STEP), (1,), generator=torch.Generator().manual_seed(seed))
        first = int(chosen) * _ROW_STEP
        stop = min(first + _ROW_STEP, rows)
        few = slice(0, _SAMPLED_ROWS if columns > 1 else _ROW_STEP)
        with _opened(edit.source) as read, _opened(merged) as read_merged:
            raw = read(first, stop, self._take("raw", TORCH_DTYPES[edit.source.dtype], stop - first, columns))[few]
            got = read_merged(first, stop, self._take("merged", TORCH_DTYPES[merged.dtype], stop - first, columns))[few]
            if not edit.changed and raw.dtype == got.dtype:
                if not torch.equal(raw.view(torch.uint8), got.view(torch.uint8)):
                    raise StepError(
                        f"{merged.file}: {edit.name}: verification failed: nothing changes it, and it differs"
                    )
            else:
                check_finite(raw, edit.source.name, edit.source.file)
                precision, changes = self._load(edit, got.dtype)
                raw = read(first, stop, self._take("checked", raw.dtype, stop - first, columns))[few]
                proof.check(edit.name, got, _claim(raw, edit, changes, precision, first))
        return len(got)

    def _load(self, edit: Edit, out_dtype: torch.dtype) -> tuple[Precision, list[Loaded]]:
        """The changes in memory, having seen what they must see of the tensor."""
        weight = torch.promote_types(TORCH_DTYPES[edit.dtype], out_dtype)
        precision = Precision(weight, torch.promote_types(weight, torch.float32))
        changes = [change.load(precision) for change in edit.changes]
        for number, change in enumerate(changes):
            if change.surveys:
                for first, _, total in self._totals(edit, changes[:number], precision, last=False):
                    change.survey(total, first, self._take)
        return precision, changes

    def _totals(
        self, edit: Edit, changes: Sequence[Loaded], precision: Precision, *, last: bool
    ) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """Each block's first row, its values as stored, and the wide sum; unless it is the `last`, it is rounded."""
        source = edit.source
        rows, columns = _matrix(edit)
        with _opened(source) as read:
            for first, stop in pairwise(_edges(rows, columns)):
                raw = read(first, stop, self._take("raw", TORCH_DTYPES[source.dtype], stop - first, columns))
                total = self._take("sum", precision.wide, stop - first, columns).copy_(raw)
                if _rounds(source, precision):  # a weight that an adapter saved in a wider dtype
                    self._round(total, precision)
                for number, change in enumerate(changes, 1):
                    change.apply(total, first, self._take)
                    if number < len(changes) or not last:
                        self._round(total, precision)
                yield first, raw, total

    def _round(self, total: torch.Tensor, precision: Precision) -> None:
        if precision.weight != precision.wide:
            total.copy_(self._take("out", precision.weight, *total.shape).copy_(total))

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


def _matrix(edit: Edit) -> tuple[int, int]:
    """Rows and columns: a tensor that is no matrix, or that nothing touches, is one column."""
    shape = edit.source.shape
    if len(shape) == 2 and (edit.changes or isinstance(edit.source, PackedTensor)):
        return shape[0], shape[1]
    return edit.source.numel, 1


def _rounds(source: TensorInfo, precision: Precision) -> bool:
    return torch.promote_types(TORCH_DTYPES[source.dtype], precision.weight) != precision.weight


def _claim(raw: torch.Tensor, edit: Edit, changes: Sequence[Loaded], precision: Precision, first: int = 0) -> Claim:
    """What the formula gives in float64 for the rows from `first`, whose stored values are `raw`."""
    claim = Claim.of(raw, first)
    if _rounds(edit.source, precision):
        claim.rounded(precision.weight)
    for change in changes:
        change.claim(claim)
    return claim


@contextmanager
def _opened(info: TensorInfo) -> Iterator[Callable[[int, int, torch.Tensor], torch.Tensor]]:
    """A function that fills a buffer with the rows from one number to another."""
    if isinstance(info, PackedTensor):
        unpacked = info.unpack()
        yield lambda first, stop, buffer: buffer.copy_(unpacked(first, stop).view(buffer.shape))
        return

    with opened(info.file, info.name) as handle:

        def read(first: int, _stop: int, buffer: torch.Tensor) -> torch.Tensor:
            with read_errors(info.file, info.name):
                read_into(handle, info.start + first * buffer.shape[1] * buffer.itemsize, bytes_of(buffer), info)
            return buffer

        yield read
