"""The header of a safetensors file, parsed with bounds: what lies in the file and where, without reading a weight.

Format: https://huggingface.co/docs/safetensors/index#format (8 bytes little-endian header length, a JSON object,
then the data; offsets are relative to the data, leave no gap and end where the file ends).
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lf_export.errors import InputError

MAX_HEADER_BYTES = 100_000_000
"""The bound that the safetensors library sets too: a larger length is a lie or an attack."""

DTYPE_BYTES: dict[str, int] = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
}
"""Bytes of one element, by the dtype's name in a header."""

FLOAT_DTYPES = frozenset({"F64", "F32", "F16", "BF16"})
"""The dtypes in which weights can be added up."""

_PREFIX = 8
_MOST_DIMENSIONS = 64
_MOST_BYTES = 1 << 128  # a product of a thousand large dimensions would itself take long
_MAGIC_HINTS = (
    (b"version ", "a Git LFS pointer lies there instead of the weights: run `git lfs pull` in that repository"),
    (b"PK\x03\x04", "a PyTorch pickle was renamed: convert it with safetensors.torch.save_file"),
    (b"GGUF", "a GGUF file was renamed: give the folder of the original checkpoint"),
)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a safetensors file: its name, dtype ("BF16"), shape, and the bytes of `file` that hold it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    nbytes: int

    @property
    def numel(self) -> int:
        """How many elements it has."""
        return self.nbytes // DTYPE_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Header:
    """What a safetensors file holds: its tensors in the order of their data, and its free-form metadata."""

    file: Path
    tensors: tuple[TensorInfo, ...]
    metadata: dict[str, str]


def read_header(file: Path) -> Header:
    """Parse the header of a safetensors file and check it against the size of the file.

    Raises:
        InputError: the file cannot be read, is truncated, or its header is not what the format says.
    """
    try:
        with file.open("rb") as handle:
            size = os.fstat(handle.fileno()).st_size
            prefix = handle.read(_PREFIX)
            length = _header_length(file, prefix, size)
            text = handle.read(length)
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error
    if len(text) < length:
        raise InputError(f"{file}: truncated: the header says {length:,} bytes, {len(text):,} are there")
    entries, metadata = _parse(file, text)
    data_start = _PREFIX + length
    tensors = [_tensor(file, name, entry, data_start) for name, entry in entries]
    tensors.sort(key=lambda info: (info.start, info.nbytes))
    _check_coverage(file, tensors, data_start, size)
    return Header(file, tuple(tensors), metadata)


def _header_length(file: Path, prefix: bytes, size: int) -> int:
    if len(prefix) < _PREFIX:
        raise InputError(f"{file}: truncated: {size} bytes, not even the {_PREFIX} bytes of the header's length")
    length = int.from_bytes(prefix, "little")
    hint = next((hint for magic, hint in _MAGIC_HINTS if prefix.startswith(magic)), None)
    if length > MAX_HEADER_BYTES:
        raise InputError(
            f"{file}: not a safetensors file: it claims a header of {length:,} bytes, "
            f"at most {MAX_HEADER_BYTES:,} are allowed",
            hint,
        )
    if length > size - _PREFIX:
        raise InputError(
            f"{file}: truncated: the header says {length:,} bytes, {size - _PREFIX:,} are there",
            hint or "copy or download the file again",
        )
    return length


def _parse(file: Path, text: bytes) -> tuple[list[tuple[str, Any]], dict[str, str]]:
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: header is not UTF-8 (byte {error.start})") from error
    if not decoded.startswith("{"):
        raise InputError(f"{file}: header is not a JSON object")
    try:
        pairs = json.loads(decoded, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: header is not JSON: {error}") from error
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise InputError(f"{file}: header names {name!r} twice")
        seen.add(name)
    metadata: dict[str, str] = {}
    entries: list[tuple[str, Any]] = []
    for name, value in pairs:
        if name != "__metadata__":
            entries.append((name, value))
            continue
        if not isinstance(value, _Pairs) or not all(isinstance(text, str) for _, text in value):
            raise InputError(f"{file}: __metadata__ is not an object of strings")
        metadata = dict(value)
    return entries, metadata


class _Pairs(list[tuple[str, Any]]):
    """The members of a JSON object, repeated names included."""


def _tensor(file: Path, name: str, entry: Any, data_start: int) -> TensorInfo:
    if not isinstance(entry, _Pairs) or sorted(key for key, _ in entry) != ["data_offsets", "dtype", "shape"]:
        raise InputError(f"{file}: {name}: expected dtype, shape and data_offsets in the header, each once")
    fields = dict(entry)
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise InputError(f"{file}: {name}: unknown dtype {dtype!r}, known are {', '.join(DTYPE_BYTES)}")
    if not _naturals(shape) or len(shape) > _MOST_DIMENSIONS:
        raise InputError(f"{file}: {name}: shape is not a list of at most {_MOST_DIMENSIONS} natural numbers")
    if not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise InputError(f"{file}: {name}: data_offsets is not a rising pair of natural numbers")
    expected = DTYPE_BYTES[dtype]
    for dimension in shape:
        expected *= dimension
        if expected > _MOST_BYTES and 0 not in shape:
            raise InputError(f"{file}: {name}: its shape takes more than 2^128 bytes")
    nbytes = offsets[1] - offsets[0]
    if nbytes != expected:
        raise InputError(f"{file}: {name}: {nbytes:,} bytes, but {dtype} {list(shape)} takes {expected:,}")
    return TensorInfo(name, dtype, tuple(shape), file, data_start + offsets[0], nbytes)


def _naturals(value: Any) -> bool:
    # `type` and not isinstance: JSON's true is an int in Python
    return type(value) is list and all(type(item) is int and 0 <= item < _MOST_BYTES for item in value)


def _check_coverage(file: Path, tensors: Sequence[TensorInfo], data_start: int, size: int) -> None:
    position = data_start
    for info in tensors:
        if info.start != position:
            what = "overlaps the tensor before it" if info.start < position else "leaves a gap before it"
            raise InputError(f"{file}: {info.name}: its data {what} (byte {info.start:,}, expected {position:,})")
        position += info.nbytes
        if position > size:
            raise InputError(
                f"{file}: truncated: {info.name} ends at byte {position:,}, the file at {size:,}",
                "copy or download the file again",
            )
    if position != size:
        raise InputError(f"{file}: {size - position:,} bytes after the last tensor belong to none")
