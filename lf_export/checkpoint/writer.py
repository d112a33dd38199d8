"""Safetensors files written as a stream: the header first, then each tensor's bytes in order, in bounded memory."""

import ctypes
import errno
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from lf_export.checkpoint.header import DTYPE_BYTES
from lf_export.checkpoint.reader import DTYPE_NAMES, bytes_of
from lf_export.checkpoint.staging import disk_errors, staging
from lf_export.errors import InputError

__all__ = ["CopyRange", "Part", "copy_range", "staging", "write_safetensors"]

_ALIGNMENT = 8
_CHUNK = 8 << 20
_WRITEBACK = 64 << 20
_SYNC_FILE_RANGE_WRITE = 2
_NO_KERNEL_COPY = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.ETXTBSY}


@dataclass(frozen=True, slots=True)
class CopyRange:
    """Bytes of another file that go into this one as they are, copied by the kernel."""

    file: Path
    start: int
    nbytes: int


Part = bytes | bytearray | memoryview | torch.Tensor | CopyRange
"""A piece of the data: a part of a tensor, a whole tensor, or several tensors in a row."""


def write_safetensors(
    path: Path,
    layout: Sequence[tuple[str, str, Sequence[int]]],
    parts: Iterable[Part],
    metadata: Mapping[str, str] | None = None,
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
    header, ends = _header(layout, metadata)
    with disk_errors(path), ExitStack() as stack:
        out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        stack.callback(os.close, out)
        _write(out, 0, memoryview(header))
        data = _Data(out, len(header), layout, ends, stack)
        for part in parts:
            data.append(part)
        data.finish()
    return len(header) + (ends[-1] if ends else 0)


def _header(
    layout: Sequence[tuple[str, str, Sequence[int]]], metadata: Mapping[str, str] | None
) -> tuple[bytes, list[int]]:
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    ends: list[int] = []
    position = 0
    for name, dtype, shape in layout:
        if name in entries or name == "__metadata__":
            raise ValueError(f"the layout names {name!r} twice, or it is no name for a tensor")
        nbytes = DTYPE_BYTES[dtype]
        for dimension in shape:
            nbytes *= dimension
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + nbytes]}
        position += nbytes
        ends.append(position)
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)  # so that the data begins at a multiple of 8
    return len(text).to_bytes(8, "little") + text, ends


class _Data:
    """The data of a file that is being written: where it stands in the layout, and the sources that it copies from."""

    def __init__(
        self,
        out: int,
        start: int,
        layout: Sequence[tuple[str, str, Sequence[int]]],
        ends: Sequence[int],
        stack: ExitStack,
    ) -> None:
        self._out, self._start, self._layout, self._ends, self._stack = out, start, layout, ends, stack
        self._position = 0
        self._flushed = 0
        self._current = 0
        self._sources: dict[Path, int] = {}

    def append(self, part: Part) -> None:
        """Write one part behind the last one."""
        nbytes = part.nbytes if isinstance(part, CopyRange | torch.Tensor | memoryview) else len(part)
        self._check(part, nbytes)
        at = self._start + self._position
        if isinstance(part, CopyRange):
            copy_range(self._source(part.file), part.start, self._out, at, nbytes)
        elif isinstance(part, torch.Tensor):
            _write(self._out, at, bytes_of(part.contiguous()))
        else:
            _write(self._out, at, memoryview(part).cast("B"))
        self._position += nbytes
        if self._position - self._flushed >= _WRITEBACK:
            _start_writeback(self._out, self._start + self._flushed, self._position - self._flushed)
            self._flushed = self._position

    def finish(self) -> None:
        """Check that nothing is missing."""
        total = self._ends[-1] if self._ends else 0
        if self._position != total:
            name = next(entry[0] for entry, end in zip(self._layout, self._ends, strict=True) if end > self._position)
            raise ValueError(f"the data ends in {name}: {self._position:,} bytes of {total:,}")

    def _check(self, part: Part, nbytes: int) -> None:
        total = self._ends[-1] if self._ends else 0
        if self._position + nbytes > total:
            raise ValueError(f"more data than the layout's {total:,} bytes")
        while self._current < len(self._ends) - 1 and self._ends[self._current] <= self._position:
            self._current += 1
        if isinstance(part, torch.Tensor):
            name, dtype, _ = self._layout[self._current] if self._layout else ("", "", ())
            if nbytes and DTYPE_NAMES[part.dtype] != dtype:
                raise ValueError(f"{name} is {dtype} in the layout, its data is {part.dtype}")

    def _source(self, file: Path) -> int:
        if file not in self._sources:
            try:
                handle = os.open(file, os.O_RDONLY)
            except OSError as error:
                raise InputError(f"{file}: cannot be read: {error.strerror}") from error
            self._stack.callback(os.close, handle)
            self._sources[file] = handle
        return self._sources[file]


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


def _start_writeback(handle: int, start: int, nbytes: int) -> None:
    """Ask the kernel to begin writing to the disk, so that the sync at the end has little left to wait for."""
    call = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if call is not None:  # a wish: what comes back does not matter
        call(handle, ctypes.c_int64(start), ctypes.c_int64(nbytes), _SYNC_FILE_RANGE_WRITE)
