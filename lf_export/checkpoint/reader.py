"""Tensors from disk by pread: each into memory of its own, so that what was read can be given back.

Nothing is mapped: a mapped file counts as the process's memory as soon as it is touched.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from lf_export.checkpoint.header import TensorInfo
from lf_export.checkpoint.packed import PackedTensor
from lf_export.errors import InputError

TORCH_DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""torch's dtype by the name in a header."""

_COMPARED_ROWS = 1024

DTYPE_NAMES: dict[torch.dtype, str] = {dtype: name for name, dtype in TORCH_DTYPES.items()}
"""The name in a header by torch's dtype."""


def read(info: TensorInfo, dtype: torch.dtype | None = None, rows: slice | None = None) -> torch.Tensor:
    """Read a tensor, or the rows of its first dimension that `rows` names; cast to `dtype` if given.

    Raises:
        InputError: the file cannot be read or is shorter than when it was opened.
    """
    shape, start, nbytes = info.shape, info.start, info.nbytes
    if rows is not None:
        first, stop, step = rows.indices(shape[0])
        if step != 1:
            raise ValueError("rows are read without a step")
        count = max(0, stop - first)
        row_bytes = nbytes // shape[0] if shape[0] else 0
        shape, start, nbytes = (count, *shape[1:]), start + first * row_bytes, count * row_bytes
    raw = torch.empty(nbytes, dtype=torch.uint8)
    with opened(info.file, info.name) as handle, read_errors(info.file, info.name):
        read_into(handle, start, bytes_of(raw), info)
    tensor = raw.view(TORCH_DTYPES[info.dtype]).view(shape)
    return tensor if dtype is None else tensor.to(dtype)


def read_finite(info: TensorInfo, dtype: torch.dtype) -> torch.Tensor:
    """Read a whole float tensor and cast it to `dtype`.

    Raises:
        InputError: the file cannot be read, or a value is NaN or infinite.
    """
    tensor = read(info, dtype)
    check_finite(tensor, info.name, info.file)
    return tensor


def same_values(one: TensorInfo, other: TensorInfo) -> bool:
    """Whether two tensors hold the same numbers once `one` is rounded to the dtype of `other`, in blocks of rows.

    A weight that is stored packed is never the same: it is not unpacked for that.

    Raises:
        InputError: a file cannot be read.
    """
    if one.shape != other.shape or isinstance(other, PackedTensor):
        return False
    dtype = TORCH_DTYPES[other.dtype]
    for first in range(0, one.shape[0] if one.shape else 0, _COMPARED_ROWS):
        rows = slice(first, first + _COMPARED_ROWS)
        if not torch.equal(read(one, dtype, rows), read(other, None, rows)):
            return False
    return True


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """The memory of a contiguous tensor as bytes, without a copy."""
    return tensor.detach().view(-1).view(torch.uint8).numpy().data


@contextmanager
def opened(file: Path, *tensor: str) -> Iterator[int]:
    """A file that is open for reading; errors name the tensor too if there is one.

    Raises:
        InputError: it cannot be opened.
    """
    with read_errors(file, *tensor):
        handle = os.open(file, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


@contextmanager
def read_errors(file: Path, *tensor: str) -> Iterator[None]:
    """Turn the system's refusal to read a file, or a tensor of it, into an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(": ".join([str(file), *tensor, f"cannot be read: {error.strerror}"])) from error


def read_into(handle: int, start: int, target: memoryview, info: TensorInfo) -> None:
    """Fill `target` with the bytes of an open file from `start`; `info` names the tensor in errors.

    Raises:
        InputError: the file ends before `target` is full.
        OSError: the system cannot read.
    """
    done = 0
    while done < len(target):  # the kernel reads at most 2 GB at once
        count = os.preadv(handle, [target[done:]], start + done)
        if count == 0:
            raise InputError(
                f"{info.file}: truncated while it was read: {info.name} lacks {len(target) - done:,} bytes"
            )
        done += count


def check_finite(tensor: torch.Tensor, name: str, file: Path) -> None:
    """Raise where weights that are about to be used have a NaN or an infinity.

    Raises:
        InputError: names the tensor, its file, and how many of its values are not finite.
    """
    if tensor.numel() == 0 or not tensor.is_floating_point():
        return
    wide = tensor if tensor.dtype in {torch.float32, torch.float64} else tensor.float()
    # one pass over the data: the smallest and the largest value are NaN or infinite when any value is
    if bool(torch.isfinite(torch.stack(torch.aminmax(wide))).all()):
        return
    bad = int((~torch.isfinite(wide)).sum())
    raise InputError(
        f"{file}: {name}: {bad:,} of {tensor.numel():,} values are NaN or infinite, finite weights were expected",
        "the training run diverged or the file is damaged: take an earlier checkpoint",
    )
