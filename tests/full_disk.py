"""A disk that is full at the n-th write: everything through which the package and its libraries write is counted."""

import contextlib
import errno
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import safetensors.torch
import tokenizers

from lf_export.checkpoint import staging

# Functions of `os` that need room, and which of their arguments say where: a path or a descriptor.
_CALLS = {
    "write": 0,
    "pwrite": 0,
    "writev": 0,
    "pwritev": 0,
    "ftruncate": 0,
    "truncate": 0,
    "fsync": 0,
    "copy_file_range": 1,
    "sendfile": 0,
    "posix_fallocate": 0,
    "rename": 1,
    "replace": 1,
    "mkdir": 0,
    "link": 1,
}


class Full:
    """Counts writes below a folder, and lets one of them fail.

    Attributes:
        count: writes so far.
        places: what each of them was.
    """

    def __init__(self, folder: Path, at: int | None) -> None:
        self.count, self.places = 0, list[str]()
        self._folder, self._at = str(folder), at
        self._known: dict[int, str] = {}

    def pass_by(self, what: str, place: Any) -> None:
        """Count a write to a path or a descriptor.

        Raises:
            OSError: the disk is full now.
        """
        try:
            path = str(Path(f"/proc/self/fd/{place}").readlink()) if isinstance(place, int) else place
        except OSError:
            return
        path = str(Path(os.fsdecode(path)).absolute())
        if not path.startswith(self._folder):
            return
        self.count += 1
        self.places.append(f"{what} {path}")
        if self.count - 1 == self._at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), None if isinstance(place, int) else path)


def _counted(full: Full, what: str, original: Callable[..., Any], argument: int) -> Callable[..., Any]:
    def call(*arguments: Any, **keywords: Any) -> Any:
        full.pass_by(what, arguments[argument] if len(arguments) > argument else next(iter(keywords.values())))
        return original(*arguments, **keywords)

    return call


def _opening(full: Full, original: Callable[..., Any]) -> Callable[..., Any]:
    class Raw(io.FileIO):
        def write(self, data: Any, /) -> int:
            full.pass_by("write", self.fileno())
            return super().write(data)

        def truncate(self, size: int | None = None, /) -> int:
            full.pass_by("truncate", self.fileno())
            return super().truncate(size)

    def opened(
        file: Any, mode: str = "r", buffering: int = -1, encoding: Any = None, errors: Any = None, newline: Any = None,
        closefd: bool = True, opener: Any = None,
    ) -> Any:  # fmt: skip
        if not set(mode) & set("wax+") or isinstance(file, int):
            return original(file, mode, buffering, encoding, errors, newline, closefd, opener)
        if not Path(file).exists():
            full.pass_by("create", file)
        plain = mode.replace("b", "").replace("t", "")
        raw = Raw(file, plain, opener=opener)
        buffer: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return raw if buffering == 0 else buffer
        return io.TextIOWrapper(buffer, encoding, errors, newline)

    return opened


@contextmanager
def full_disk(folder: Path, at: int | None = None) -> Iterator[Full]:
    """The write number `at` (from 0) below `folder` fails, with None none does."""
    full = Full(folder, at)
    opened = _opening(full, io.open)
    with contextlib.ExitStack() as stack:

        def patch(owner: Any, name: str, new: Any) -> None:
            stack.enter_context(mock.patch.object(owner, name, new))

        for name, argument in _CALLS.items():
            patch(os, name, _counted(full, name, getattr(os, name), argument))
        patch(io, "open", opened)
        stack.enter_context(mock.patch("builtins.open", opened))
        # what writes in Rust or through the file's descriptor is one write each
        patch(staging, "_renameat2", _counted(full, "renameat2", staging._renameat2, 1))
        patch(tokenizers.Tokenizer, "save", _counted(full, "tokenizer", tokenizers.Tokenizer.save, 1))
        patch(safetensors.torch, "save_file", _counted(full, "save_file", safetensors.torch.save_file, 1))
        patch(shutil, "_USE_CP_SENDFILE", True)
        yield full
