"""Reads importance matrices: `imatrix.gguf` as this package and llama.cpp write it, and llama.cpp's older `.dat`."""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lf_export.errors import InputError
from lf_export.formats.gguf_arch import gguf_library
from lf_export.formats.gguf_imatrix import FloatArray, Imatrix
from lf_export.provenance import sha256_file

_MAGIC = b"GGUF"
_SUMS, _COUNTS = ".in_sum2", ".counts"
_LONGEST_NAME = 256
_SHOWN = 8


@dataclass(frozen=True)
class ImatrixFile:
    """An importance matrix from a file, and what the manifest says of it."""

    imatrix: Imatrix
    facts: dict[str, Any]


@dataclass(frozen=True)
class _Entries:
    sums: dict[str, FloatArray]
    counts: dict[str, FloatArray]
    datasets: list[str]


def read_imatrix(path: Path, widths: Mapping[str, int], experts: Mapping[str, int] | None = None) -> ImatrixFile:
    """The importance matrix in `path`, for tensors of these widths.

    Source: llama.cpp, `tools/quantize/quantize.cpp` (`load_imatrix`, `load_legacy_imatrix`).

    Args:
        path: the file.
        widths: the input width of each tensor that will ask for its importance, by GGUF name. What else the file has is
            left out.
        experts: of the tensors that hold the matrices of experts, how many. Where no token reached some of them, the
            facts say which.

    Raises:
        InputError: no such file, one that is no importance matrix or is truncated, a tensor that is missing or has
            another width, values that are no sums of squares, a tensor that no token reached.
    """
    matrices = {name: (experts or {}).get(name, 1) for name in widths}
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror}", "name a file with an importance matrix"
        ) from error
    found = _from_gguf(path) if magic == _MAGIC else _from_legacy(path)
    problems = [problem for name, width in widths.items() for problem in _problems(found, name, width, matrices[name])]
    if problems:
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        lines = [f"{path}: {problem}" for problem in [*problems[:_SHOWN], *more]]
        raise InputError.of(lines, "the importance matrix has to be that of a model of this shape")
    imatrix = Imatrix(
        {name: found.sums[name].reshape(matrices[name], width) for name, width in widths.items()},
        {name: np.resize(found.counts[name].reshape(-1), matrices[name]) for name in widths},
    )
    facts: dict[str, Any] = {"source": path.name, "sha256": sha256_file(path), "entries": len(imatrix)}
    facts["datasets"] = found.datasets
    unseen = {name: np.flatnonzero(found.counts[name].reshape(-1) <= 0).tolist() for name in widths}
    if any(unseen.values()):
        facts["experts_without_tokens"] = {name: numbers for name, numbers in unseen.items() if numbers}
    return ImatrixFile(imatrix, facts)


def _problems(found: _Entries, name: str, width: int, matrices: int) -> Iterator[str]:
    sums, counts = found.sums.get(name), found.counts.get(name)
    if sums is None or counts is None:
        yield f"{name} is missing" if sums is None else f"{name} has sums but no counts"
    elif sums.size != width * matrices:
        of = f" for each of {matrices} experts" if matrices > 1 else ""
        yield f"{name} has {sums.size} channels, expected {width}{of}"
    elif counts.size not in {1, matrices}:  # the older form has one
        yield f"{name} has {counts.size} counts, expected {matrices}"
    elif not np.isfinite(counts).all() or counts.max() <= 0:
        yield f"{name}: no token reached it, the count is {counts.max():g}"
    elif not np.isfinite(sums).all() or (sums < 0).any():
        place = int(np.flatnonzero(~(np.isfinite(sums) & (sums >= 0)))[0])
        yield f"{name}: channel {place} is {sums.reshape(-1)[place]:g}, expected a sum of squares"


def _from_gguf(path: Path) -> _Entries:
    reader_class = gguf_library().GGUFReader
    try:
        reader = reader_class(path)
        fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
        tensors = {tensor.name: np.array(tensor.data, np.float32) for tensor in reader.tensors}
    except (ValueError, IndexError, KeyError, OverflowError, TypeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: a truncated or malformed GGUF file: {error}") from error
    kind = fields.get("general.type")
    if kind != "imatrix":
        raise InputError(f"{path}: a GGUF of type {kind!r}, expected an importance matrix (imatrix)")
    datasets = fields.get("imatrix.datasets") or []
    return _Entries(
        {name.removesuffix(_SUMS): values for name, values in tensors.items() if name.endswith(_SUMS)},
        {name.removesuffix(_COUNTS): values for name, values in tensors.items() if name.endswith(_COUNTS)},
        [str(name) for name in datasets],
    )


def _from_legacy(path: Path) -> _Entries:
    """The `.dat` form: a count, then for each tensor its name, its calls and its sums; little endian, 32 bits each."""
    data = path.read_bytes()
    entries = _Entries({}, {}, [])
    try:
        (count,) = struct.unpack_from("<i", data)
        place = 4
        if count < 1:
            raise InputError(f"{path}: neither a GGUF nor an importance matrix in llama.cpp's older form")
        for _ in range(count):
            (length,) = struct.unpack_from("<i", data, place)
            if not 0 < length <= _LONGEST_NAME:
                raise InputError(f"{path}: neither a GGUF nor an importance matrix in llama.cpp's older form")
            (raw, calls, width) = struct.unpack_from(f"<{length}sii", data, place + 4)
            place += 12 + length
            name = raw.decode("utf-8")
            if width < 1 or len(data) - place < 4 * width:
                raise InputError(f"{path}: truncated at {name}: expected {width} channels")
            entries.sums[name] = np.frombuffer(data, "<f4", width, place).astype(np.float32)
            entries.counts[name] = np.array([calls], np.float32)
            place += 4 * width
    except struct.error as error:
        raise InputError(f"{path}: truncated: {len(entries.sums)} importances are whole") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: neither a GGUF nor an importance matrix in llama.cpp's older form") from error
    return entries
