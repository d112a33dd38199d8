"""Safetensors files written as a stream: the header first, then each tensor's bytes in order, in bounded memory."""

import ctypes
import errno
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch

from lf_export.checkpoint.header import DTYPE_BYTES
from lf_export.checkpoint.reader import DTYPE_NAMES, bytes_of, opened
from lf_export.checkpoint.staging import disk_errors, staging
from lf_export.errors import InputError

__all__ = ["CopyRange", "Entry", "Part", "SafetensorsFile", "copy_range", "staging", "write_safetensors"]

_ALIGNMENT = 8
_CHUNK = 8 << 20
WRITEBACK_BYTES = 64 << 20
_SYNC_FILE_RANGE_WRITE = 2
_NO_KERNEL_COPY = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.ETXTBSY}


@dataclass(frozen=True, slots=True)
class CopyRange:
    """Bytes of another file that go into this one as they are, copied by the kernel."""

    file: Path
    start: int
    nbytes: int


Entry = tuple[str, str, Sequence[int]]
"""A tensor of a layout: its name, its dtype as in a header, its shape."""

Part = bytes | bytearray | memoryview | torch.Tensor | CopyRange
"""A piece of the data: a part of a tensor, a whole tensor, or several tensors in a row."""


class SafetensorsFile:
    """A safetensors file that is being written: the header at once, the data at any place, from any thread.

    Args:
        path: the file to write; it must not exist.
        layout: (name, dtype as in a header such as "BF16", shape) of each tensor, in the order of the data.
        metadata: the header's free-form strings.

    `nbytes` is the size of the data, `size` that of the file.

    Raises:
        ValueError: the layout names a tensor twice.
        OSError: the system cannot write.
    """

    def __init__(self, path: Path, layout: Sequence[Entry], metadata: Mapping[str, str] | None = None) -> None:
        header, self.ends = _header(layout, metadata)
        self.nbytes = self.ends[-1] if self.ends else 0
        self.size = len(header) + self.nbytes
        self._start = len(header)
        self._out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            _write(self._out, 0, memoryview(header))
        except BaseException:
            self.close()
            raise

    def put(self, at: int, part: Part) -> int:
        """Write a part at byte `at` of the data; returns its length.

        Raises:
            ValueError: it does not fit into the data.
            InputError: a range to copy cannot be read.
            OSError: the system cannot write.
        """
        nbytes = part.nbytes if isinstance(part, CopyRange | torch.Tensor | memoryview) else len(part)
        if at + nbytes > self.nbytes:
            raise ValueError(f"more data than the layout's {self.nbytes:,} bytes")
        if isinstance(part, CopyRange):
            with opened(part.file) as source:
                copy_range(source, part.start, self._out, self._start + at, nbytes)
        elif isinstance(part, torch.Tensor):
            _write(self._out, self._start + at, bytes_of(part.contiguous()))
        else:
            _write(self._out, self._start + at, memoryview(part).cast("B"))
        return nbytes

    def start_writeback(self, at: int, nbytes: int) -> None:
        """Ask the kernel to begin writing data to the disk, so that the sync at the end has little to wait for."""
        call = getattr(ctypes.CDLL(None), "sync_file_range", None)
        if call is not None:  # a wish: what comes back does not matter
            call(self._out, ctypes.c_int64(self._start + at), ctypes.c_int64(nbytes), _SYNC_FILE_RANGE_WRITE)

    def close(self) -> None:
        """Close the file."""
        os.close(self._out)


def write_safetensors(
    path: Path, layout: Sequence[Entry], parts: Iterable[Part], metadata: Mapping[str, str] | None = None
) -> int:
    """Write a safetensors file; returns its size in bytes.

    Args:
        path: the file to write; it must not exist.
        layout: (name, dtype as in a header such as "BF16", shape) of each tensor, in the order of the data.
        parts: the data in that order. A part is written before the next one is asked for, so a generator may use
            the same buffer again.
        metadata: the header's free-form strings.

    Raises:
        ValueError: the parts are not what the layout says.
        StepError: the disk is full or read-only.
    """
    with disk_errors(path), closing(SafetensorsFile(path, layout, metadata)) as file:
        position = flushed = current = 0
        for part in parts:
            while current < len(layout) - 1 and file.ends[current] <= position:
                current += 1
            if isinstance(part, torch.Tensor) and part.nbytes and layout:
                name, dtype, _ = layout[current]
                if DTYPE_NAMES[part.dtype] != dtype:
                    raise ValueError(f"{name} is {dtype} in the layout, its data is {part.dtype}")
            position += file.put(position, part)
            if position - flushed >= WRITEBACK_BYTES:
                file.start_writeback(flushed, position - flushed)
                flushed = position
        if position != file.nbytes:
            name = next(entry[0] for entry, end in zip(layout, file.ends, strict=True) if end > position)
            raise ValueError(f"the data ends in {name}: {position:,} bytes of {file.nbytes:,}")
        return file.size


def _header(layout: Sequence[Entry], metadata: Mapping[str, str] | None) -> tuple[bytes, list[int]]:
    """The header's bytes with its length before it, and where each tensor's data ends."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    ends: list[int] = []
    position = 0
    for name, dtype, shape in layout:
        if name in entries or name == "__metadata__":
            raise ValueError(f"the layout names {name!r} twice, or it is no name for a tensor")
        nbytes = DTYPE_BYTES[dtype] * math.prod(shape)
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + nbytes]}
        position += nbytes
        ends.append(position)
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)  # so that the data begins at a multiple of 8
    return len(text).to_bytes(8, "little") + text, ends


def _write(out: int, at: int, data: memoryview) -> None:
    done = 0
    while done < len(data):  # the kernel writes at most 2 GB at once
        done += os.pwrite(out, data[done:], at + done)


def copy_range(source: int, source_at: int, target: int, target_at: int, nbytes: int) -> None:
    """Copy bytes between two open files inside the kernel, or through a buffer of 8 MiB where it cannot.

    Raises:
        InputError: the source ends before `nbytes`.
        OSError: the system cannot read or write.
    """
    done = 0
    try:
        while done < nbytes:
            count = os.copy_file_range(source, target, nbytes - done, source_at + done, target_at + done)
            if count == 0:
                break  # the end of the source, or a file system that only pretends: the loop below tells
            done += count
    except OSError as error:
        if error.errno not in _NO_KERNEL_COPY:
            raise
    buffer = memoryview(bytearray(min(_CHUNK, nbytes - done)))
    while done < nbytes:
        count = os.preadv(source, [buffer[: nbytes - done]], source_at + done)
        if count == 0:
            raise InputError(f"a weight file was truncated while it was copied: {nbytes - done:,} bytes are missing")
        _write(target, target_at + done, buffer[:count])
        done += count
