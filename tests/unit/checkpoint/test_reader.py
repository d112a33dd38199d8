"""Reading tensors by pread: every dtype, some rows, and a file that shrinks while it is read."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lf_export.checkpoint.header import DTYPE_BYTES, read_header
from lf_export.checkpoint.reader import DTYPE_NAMES, TORCH_DTYPES, check_finite, read
from lf_export.errors import InputError


def saved(folder: Path, tensor: torch.Tensor) -> Path:
    save_file({"before": torch.zeros(3), "x": tensor}, folder / "x.safetensors")
    return folder / "x.safetensors"


def info_of(path: Path) -> object:
    return next(info for info in read_header(path).tensors if info.name == "x")


def test_the_tables_of_dtypes_agree() -> None:
    assert TORCH_DTYPES.keys() == DTYPE_BYTES.keys()
    assert all(dtype.itemsize == DTYPE_BYTES[name] for name, dtype in TORCH_DTYPES.items())
    assert len(DTYPE_NAMES) == len(TORCH_DTYPES)


@pytest.mark.parametrize("name", TORCH_DTYPES)
def test_every_dtype_comes_back_bit_for_bit(tmp_path: Path, name: str) -> None:
    size = DTYPE_BYTES[name]
    raw = torch.arange(24 * size).remainder(2 if name == "BOOL" else 100).to(torch.uint8)
    tensor = raw.view(TORCH_DTYPES[name]).view(4, 6)
    got = read(info_of(saved(tmp_path, tensor)))
    assert got.dtype == tensor.dtype
    assert torch.equal(got.view(torch.uint8), tensor.view(torch.uint8))


@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (2, 3, 4)])
def test_every_shape_comes_back(tmp_path: Path, shape: tuple[int, ...]) -> None:
    tensor = torch.randn(shape)
    assert torch.equal(read(info_of(saved(tmp_path, tensor))), tensor)


@pytest.mark.parametrize("rows", [slice(2, 5), slice(None, 3), slice(-2, None), slice(4, 2), slice(0, 100)])
def test_some_rows_are_what_indexing_gives(tmp_path: Path, rows: slice) -> None:
    tensor = torch.randn(7, 3, 2)
    assert torch.equal(read(info_of(saved(tmp_path, tensor)), rows=rows), tensor[rows])


def test_a_cast_is_torch_s(tmp_path: Path) -> None:
    tensor = torch.randn(5, 5).bfloat16()
    assert torch.equal(read(info_of(saved(tmp_path, tensor)), torch.float32), tensor.float())


def test_what_was_read_outlives_the_file(tmp_path: Path) -> None:
    tensor = torch.randn(50, 50)
    path = saved(tmp_path, tensor)
    got = read(info_of(path))
    path.write_bytes(b"\0" * path.stat().st_size)
    assert torch.equal(got, tensor)


def test_a_file_that_shrank_or_went_is_an_input_error(tmp_path: Path) -> None:
    path = saved(tmp_path, torch.randn(50, 50))
    info = info_of(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 8)
    with pytest.raises(InputError, match="truncated while it was read: x lacks 8 bytes"):
        read(info)
    path.unlink()
    with pytest.raises(InputError, match="x: cannot be read"):
        read(info)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_counted_and_named(tmp_path: Path, dtype: torch.dtype, bad: float) -> None:
    tensor = torch.randn(9, 9).to(dtype)
    check_finite(tensor, "fine", tmp_path)
    tensor[3, 4] = tensor[8, 8] = bad
    with pytest.raises(InputError, match=r"layer\.weight: 2 of 81 values are NaN or infinite"):
        check_finite(tensor, "layer.weight", tmp_path / "f.safetensors")


@pytest.mark.parametrize("make", [lambda: torch.zeros(0), lambda: torch.ones(3, dtype=torch.int32)])
def test_empty_and_whole_numbers_are_finite(make: Callable[[], torch.Tensor], tmp_path: Path) -> None:
    check_finite(make(), "x", tmp_path)
