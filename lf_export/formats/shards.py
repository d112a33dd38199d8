"""Safetensors shards that are filled as tensors come, in any order, and named before the first byte is written."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from lf_export.checkpoint.header import DTYPE_BYTES, TensorInfo
from lf_export.checkpoint.reader import DTYPE_NAMES, bytes_of, opened
from lf_export.checkpoint.staging import disk_errors
from lf_export.checkpoint.writer import copy_range

SHARD_BYTES = 4 << 30


@dataclass(frozen=True)
class Entry:
    """A tensor that will be written: its name, dtype as in a header (`I32`), and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the data."""
        return prod(self.shape) * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True)
class _Place:
    file: Path
    start: int
    entry: Entry


class Shards:
    """The weight files of a Hugging Face folder, laid out at once from the shapes and then filled.

    `model.safetensors` alone where everything fits `shard_bytes`, else numbered shards with their index. Tensors may
    come in any order, each once; nothing is kept in memory. A file that is there already is kept as a killed run left
    it, for `restore`.
    """

    def __init__(self, folder: Path, entries: Sequence[Entry], shard_bytes: int = SHARD_BYTES) -> None:
        self._folder = folder
        self._places: dict[str, _Place] = {}
        self._missing = {entry.name for entry in entries}
        self._files: list[Path] = []
        shards = _split(entries, shard_bytes)
        for number, shard in enumerate(shards, 1):
            name = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            self._create(folder / name, shard)

    def put(self, name: str, tensor: torch.Tensor) -> None:
        """Write a tensor of the dtype and shape that were announced."""
        place = self._take(name)
        if DTYPE_NAMES[tensor.dtype] != place.entry.dtype or tuple(tensor.shape) != place.entry.shape:
            raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}, announced as {place.entry}")
        data = bytes_of(tensor.contiguous().cpu())
        with disk_errors(self._folder), _writing(place.file) as file:
            done = 0
            while done < len(data):  # the kernel writes at most 2 GB at once
                done += os.pwrite(file, data[done:], place.start + done)

    def copy(self, name: str, source: TensorInfo) -> None:
        """Copy a tensor from another file as it is, inside the kernel."""
        place = self._take(name)
        with opened(source.file) as origin, disk_errors(self._folder), _writing(place.file) as file:
            copy_range(origin, source.start, file, place.start, source.nbytes)

    def info(self, name: str) -> TensorInfo:
        """Where a tensor that was written lies."""
        if name in self._missing:
            raise ValueError(f"{name} was not written yet")
        place = self._places[name]
        return TensorInfo(name, place.entry.dtype, place.entry.shape, place.file, place.start, place.entry.nbytes)

    def snapshot(self) -> list[str]:
        """The tensors that were written, in the order of the files."""
        return [name for name in self._places if name not in self._missing]

    def restore(self, written: Sequence[str]) -> None:
        """Take tensors that a snapshot names for written: the files hold them."""
        for name in written:
            self._take(name)

    def finish(self) -> None:
        """Check that every tensor came, and write the index where there are several shards."""
        if self._missing:
            raise ValueError(f"never written: {', '.join(sorted(self._missing))}")
        if len(self._files) > 1:
            index = {
                "metadata": {"total_size": sum(place.entry.nbytes for place in self._places.values())},
                "weight_map": {name: place.file.name for name, place in sorted(self._places.items())},
            }
            with disk_errors(self._folder):
                path = self._folder / "model.safetensors.index.json"
                path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")

    def _create(self, path: Path, entries: Sequence[Entry]) -> None:
        header = _header(entries)
        start = len(header)
        for entry in entries:
            self._places[entry.name] = _Place(path, start, entry)
            start += entry.nbytes
        self._files.append(path)
        if path.exists():
            return
        with disk_errors(self._folder), path.open("xb") as file:
            file.write(header)

    def _take(self, name: str) -> _Place:
        if name not in self._missing:
            raise ValueError(f"{name} was written already, or never announced")
        self._missing.remove(name)
        return self._places[name]


@contextmanager
def _writing(path: Path) -> Iterator[int]:
    """An open file, only as long as it is written: a walk that fails leaves none open."""
    handle = os.open(path, os.O_WRONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def _split(entries: Sequence[Entry], shard_bytes: int) -> list[list[Entry]]:
    shards: list[list[Entry]] = [[]]
    held = 0
    for entry in entries:
        if shards[-1] and held + entry.nbytes > shard_bytes:
            shards.append([])
            held = 0
        shards[-1].append(entry)
        held += entry.nbytes
    return shards


def _header(entries: Sequence[Entry]) -> bytes:
    table: dict[str, Mapping[str, object]] = {"__metadata__": {"format": "pt"}}
    start = 0
    for entry in entries:
        stop = start + entry.nbytes
        table[entry.name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the data begins at a multiple of eight
    return len(text).to_bytes(8, "little") + text
