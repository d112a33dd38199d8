"""Writing safetensors as a stream: what the safetensors library reads back, in bounded memory, or an error."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from lf_export.checkpoint.header import read_header
from lf_export.checkpoint.writer import CopyRange, Part, copy_range, write_safetensors
from lf_export.errors import InputError, StepError

LAYOUT = [("a", "F32", (2, 3)), ("b", "U8", (5,)), ("c", "BF16", ())]


def test_the_safetensors_library_reads_what_was_written(tmp_path: Path) -> None:
    a, b, c = torch.randn(2, 3), torch.arange(5, dtype=torch.uint8), torch.tensor(1.5).bfloat16()
    path = tmp_path / "x.safetensors"
    size = write_safetensors(path, LAYOUT, [a, b.numpy().tobytes(), c], {"format": "pt"})
    assert size == path.stat().st_size
    loaded = load_file(path)
    assert list(loaded) == ["a", "b", "c"]
    assert all(torch.equal(loaded[name], tensor) for name, tensor in {"a": a, "b": b, "c": c}.items())
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert read_header(path).tensors[0].start % 8 == 0


def test_parts_may_be_pieces_of_tensors_in_one_buffer(tmp_path: Path) -> None:
    tensor = torch.randn(10, 4)

    def parts() -> Iterator[Part]:
        buffer = torch.empty(3, 4)
        for first in range(0, 10, 3):
            rows = tensor[first : first + 3]
            yield buffer[: len(rows)].copy_(rows)
        yield memoryview(b"tail")

    write_safetensors(tmp_path / "x.safetensors", [("a", "F32", (10, 4)), ("b", "U8", (4,))], parts())
    assert torch.equal(load_file(tmp_path / "x.safetensors")["a"], tensor)


def test_a_part_that_is_not_contiguous_is_written_in_its_order(tmp_path: Path) -> None:
    tensor = torch.randn(3, 2).T
    write_safetensors(tmp_path / "x.safetensors", [("a", "F32", (2, 3))], [tensor])
    assert torch.equal(load_file(tmp_path / "x.safetensors")["a"], tensor)


@pytest.mark.parametrize(
    ("layout", "parts", "says"),
    [
        (LAYOUT, [torch.zeros(2, 3), b"12345"], "the data ends in c: 29 bytes of 31"),
        (LAYOUT, [torch.zeros(2, 3), b"12345", b"1234"], "more data than the layout's 31 bytes"),
        (LAYOUT, [torch.zeros(6, dtype=torch.int32)], "a is F32 in the layout, its data is torch.int32"),
        (LAYOUT, [b"0" * 24, torch.zeros(5, dtype=torch.bool)], "b is U8 in the layout"),
        ([*LAYOUT, LAYOUT[0]], [], "names 'a' twice"),
    ],
)
def test_parts_that_are_not_the_layout_are_a_mistake_of_ours(
    tmp_path: Path, layout: list[Any], parts: list[Part], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        write_safetensors(tmp_path / "x.safetensors", layout, parts)


@pytest.mark.parametrize("kernel", [True, False], ids=["copy_file_range", "fallback"])
def test_ranges_are_copied_with_and_without_the_kernel(
    tmp_path: Path, kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernel:

        def refuse(*_: Any) -> int:
            raise OSError(errno.EXDEV, "cross-device link")

        monkeypatch.setattr(os, "copy_file_range", refuse)
        monkeypatch.setattr("lf_export.checkpoint.writer._CHUNK", 7)
    source = tmp_path / "source"
    source.write_bytes(bytes(range(200)))
    parts = [CopyRange(source, 10, 100), b"end!"]
    write_safetensors(tmp_path / "x.safetensors", [("a", "U8", (100,)), ("b", "U8", (4,))], parts)
    assert load_file(tmp_path / "x.safetensors")["a"].numpy().tobytes() == bytes(range(10, 110))


@pytest.mark.parametrize("kernel", [True, False], ids=["copy_file_range", "fallback"])
def test_a_source_that_ends_early_is_an_input_error(
    tmp_path: Path, kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernel:
        monkeypatch.setattr(os, "copy_file_range", lambda *_: 0)
    (tmp_path / "source").write_bytes(b"12345")
    with (
        (tmp_path / "source").open("rb") as source,
        (tmp_path / "target").open("wb") as target,
        pytest.raises(InputError, match="2 bytes are missing"),
    ):
        copy_range(source.fileno(), 1, target.fileno(), 0, 6)


def test_a_missing_source_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gone: cannot be read"):
        write_safetensors(tmp_path / "x.safetensors", [("a", "U8", (4,))], [CopyRange(tmp_path / "gone", 0, 4)])


def test_a_full_disk_is_a_step_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StepError, match="disk full while writing"):
        write_safetensors(tmp_path / "x.safetensors", LAYOUT, [])


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda handle, data, at: pwrite(handle, bytes(data[:5]), at))
    tensor = torch.randn(2, 3)
    write_safetensors(tmp_path / "x.safetensors", LAYOUT[:1], [tensor])
    assert torch.equal(load_file(tmp_path / "x.safetensors")["a"], tensor)


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        write_safetensors(tmp_path / "x.safetensors", LAYOUT, [])
    assert (tmp_path / "x.safetensors").read_bytes() == b"mine"
