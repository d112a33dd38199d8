"""Where the tensors of a weight file lie, so that a damaged byte can be told by the tensor that holds it.

Safetensors by `header`; GGUF by its own header (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), read here
without the `gguf` package, which is an extra and maps the whole file.
"""

import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

from lf_export.checkpoint.header import read_header
from lf_export.errors import InputError

HEADER = "header"
"""What the region before the first tensor is called."""

_MAGIC = b"GGUF"
_SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of a value, by type
_UINT32, _STRING, _ARRAY = 4, 8, 9
_ALIGNMENT = "general.alignment"
_MOST_ENTRIES = 1_000_000  # keys or tensors
_LONGEST = 1 << 30  # bytes of a string, elements of an array: what no file of ours has
_DEEPEST = 4  # arrays in arrays


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a file, from byte `start` to before `stop`, and what it holds."""

    name: str
    start: int
    stop: int


def regions_of(path: Path) -> list[Region]:
    """The regions of a weight file in order and without a gap, the header first; of another file none.

    Raises:
        InputError: it is a weight file by its name and its header does not read.
    """
    if path.suffix == ".safetensors":
        header = read_header(path)
        start = min((info.start for info in header.tensors), default=path.stat().st_size)
        tensors = [Region(info.name, info.start, info.start + info.nbytes) for info in header.tensors]
        return [Region(HEADER, 0, start), *tensors]
    if path.suffix == ".gguf":
        return _gguf(path)
    return []


def _gguf(path: Path) -> list[Region]:
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            starts, data = _Reader(file, size).tensors()
    except (struct.error, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{path}: a truncated or malformed GGUF file: {error}") from error
    ordered = sorted((data + offset, name) for name, offset in starts)
    ends = [*(start for start, _ in ordered[1:]), size]
    if any(start > end for (start, _), end in zip(ordered, ends, strict=True)):
        raise InputError(f"{path}: truncated: a tensor begins after the file's end")
    first = ordered[0][0] if ordered else size
    tensors = [Region(name, start, end) for (start, name), end in zip(ordered, ends, strict=True)]
    return [Region(HEADER, 0, first), *tensors]


class _Reader:
    """Reads a GGUF header; everything that it claims is held against the file's size first."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self._alignment = 32

    def tensors(self) -> tuple[list[tuple[str, int]], int]:
        """(name, offset in the data) of each tensor, and where the data begins."""
        if self._file.read(4) != _MAGIC:
            raise ValueError("it does not begin with GGUF")
        version, tensors, keys = self._unpack("<IQQ")
        if version not in {2, 3} or max(tensors, keys) > _MOST_ENTRIES:
            raise ValueError(f"version {version}, {tensors} tensors, {keys} keys")
        for _ in range(keys):
            name = self._string()
            (kind,) = self._unpack("<I")
            if name == _ALIGNMENT and kind == _UINT32:
                (self._alignment,) = self._unpack("<I")
            else:
                self._skip(kind)
        found = []
        for _ in range(tensors):
            name = self._string()
            (dimensions,) = self._unpack("<I")
            if dimensions > 8:
                raise ValueError(f"{name}: {dimensions} dimensions")
            shape = self._unpack(f"<{dimensions}Q")
            if prod(shape) > self._size * 8:
                raise ValueError(f"{name}: more elements than the file has bits")
            _, offset = self._unpack("<IQ")
            found.append((name, offset))
        if self._alignment <= 0:
            raise ValueError("an alignment of 0")
        position = self._file.tell()
        return found, position + -position % self._alignment

    def _unpack(self, layout: str) -> tuple[int, ...]:
        return struct.unpack(layout, self._file.read(struct.calcsize(layout)))

    def _string(self) -> str:
        (length,) = self._unpack("<Q")
        return self._bytes(length).decode("utf-8", errors="replace")

    def _bytes(self, length: int) -> bytes:
        if length > min(_LONGEST, self._size - self._file.tell()):
            raise ValueError(f"a text of {length} bytes")
        return self._file.read(length)

    def _skip(self, kind: int, depth: int = 0) -> None:
        if kind in _SCALARS:
            self._advance(_SCALARS[kind])
        elif kind == _STRING:
            (length,) = self._unpack("<Q")
            self._advance(length)
        elif kind == _ARRAY and depth < _DEEPEST:
            (inner,) = self._unpack("<I")
            (count,) = self._unpack("<Q")
            if count > min(_LONGEST, self._size):
                raise ValueError(f"an array of {count} elements")
            if inner in _SCALARS:
                self._advance(_SCALARS[inner] * count)
                return
            for _ in range(count):
                self._skip(inner, depth + 1)
        else:
            raise ValueError(f"a value of type {kind}")

    def _advance(self, count: int) -> None:
        if count > self._size - self._file.tell():
            raise ValueError(f"a value of {count} bytes goes past the end")
        self._file.seek(count, 1)
