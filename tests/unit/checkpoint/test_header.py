"""The header of a safetensors file: what the format says is read, every lie about it is an InputError."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lf_export.checkpoint.header import MAX_HEADER_BYTES, read_header
from lf_export.errors import InputError


def file_of(folder: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / "x.safetensors"
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(start: int, end: int, shape: list[Any], dtype: str = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_reads_what_the_safetensors_library_wrote(tmp_path: Path) -> None:
    tensors = {
        "matrix": torch.zeros(3, 5, dtype=torch.bfloat16),
        "scalar": torch.tensor(1.0, dtype=torch.float64),
        "empty": torch.zeros(0, 4),
        "flags": torch.tensor([True, False]),
    }
    save_file(tensors, tmp_path / "x.safetensors", {"format": "pt"})
    header = read_header(tmp_path / "x.safetensors")
    assert header.metadata == {"format": "pt"}
    found = {info.name: (info.dtype, info.shape, info.numel) for info in header.tensors}
    assert found == {
        "matrix": ("BF16", (3, 5), 15),
        "scalar": ("F64", (), 1),
        "empty": ("F32", (0, 4), 0),
        "flags": ("BOOL", (2,), 2),
    }


@pytest.mark.parametrize(
    ("header", "data", "says"),
    [
        ({"a": entry(0, 3, [4])}, b"1234", "3 bytes, but U8 [4] takes 4"),
        ({"a": entry(0, 4, [4], "F32")}, b"1234", "4 bytes, but F32 [4] takes 16"),
        ({"a": entry(0, 4, [4])}, b"123", "truncated: a ends at byte"),
        ({"a": entry(0, 4, [4])}, b"12345", "1 bytes after the last tensor"),
        ({"a": entry(0, 4, [4]), "b": entry(5, 6, [1])}, b"123456", "b: its data leaves a gap"),
        ({"a": entry(0, 4, [4]), "b": entry(2, 6, [4])}, b"123456", "b: its data overlaps"),
        ({"a": entry(1, 5, [4])}, b"12345", "a: its data leaves a gap"),
        ({"a": entry(4, 0, [4])}, b"1234", "rising pair"),
        ({"a": entry(-4, 0, [4])}, b"1234", "rising pair"),
        ({"a": entry(0, 4, [-4])}, b"1234", "natural numbers"),
        ({"a": entry(0, 1, [True])}, b"1", "natural numbers"),
        ({"a": entry(0, 4, [4.0])}, b"1234", "natural numbers"),
        ({"a": entry(0, 10**30, [10**30])}, b"1234", "truncated"),
        ({"a": entry(0, 4, [4], "F4")}, b"1234", "unknown dtype 'F4'"),
        ({"a": {"dtype": "U8", "shape": [4]}}, b"1234", "expected dtype, shape and data_offsets"),
        ({"a": 3}, b"", "expected dtype, shape and data_offsets"),
        ({"__metadata__": {"a": 1}}, b"", "not an object of strings"),
        ([1], b"", "not a JSON object"),
        (b'{"a":', b"", "not JSON"),
        (b'{"a": "\xff"}', b"", "not UTF-8"),
        (b'{"a":' + b"[" * 200_000, b"", "not JSON"),
        (b"{}" + b"\0" * 6, b"", "not JSON"),
        (
            b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
            b"12",
            "names 'a' twice",
        ),
        (
            b'{"a":{"dtype":"U8","shape":[1],"shape":[1],"data_offsets":[0,1]}}',
            b"1",
            "a: expected dtype, shape and data_offsets in the header, each once",
        ),
    ],
)
def test_a_header_that_lies_is_refused_with_the_reason(tmp_path: Path, header: Any, data: bytes, says: str) -> None:
    path = file_of(tmp_path, header, data)
    with pytest.raises(InputError) as caught:
        read_header(path)
    assert says in caught.value.message
    assert str(path) in caught.value.message


@pytest.mark.parametrize("size", [0, 3, 8, 9, 40])
def test_a_truncated_file_is_refused(tmp_path: Path, size: int) -> None:
    whole = file_of(tmp_path, {"a": entry(0, 4, [4])}, b"1234").read_bytes()
    assert size < len(whole)
    (tmp_path / "x.safetensors").write_bytes(whole[:size])
    with pytest.raises(InputError, match="truncated"):
        read_header(tmp_path / "x.safetensors")


def test_the_length_of_the_header_is_bounded_before_it_is_read(tmp_path: Path) -> None:
    path = file_of(tmp_path, {}, length=MAX_HEADER_BYTES + 1)
    with path.open("r+b") as file:
        file.truncate(MAX_HEADER_BYTES * 2)  # sparse: the bytes would be there to read
    with pytest.raises(InputError, match="at most 100,000,000 are allowed"):
        read_header(path)


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"PK\x03\x04" + b"\0" * 60, "pickle"),
        (b"GGUF" + b"\x03" * 60, "GGUF"),
    ],
)
def test_a_file_of_another_kind_is_recognised(tmp_path: Path, content: bytes, hint: str) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_header(tmp_path / "x.safetensors")
    assert hint in (caught.value.hint or "")


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_header(tmp_path)
