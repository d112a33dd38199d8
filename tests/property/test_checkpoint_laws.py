"""Laws of checkpoints: what is written is read, and no damage to a header is anything but an InputError."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open

from lf_export.checkpoint.header import DTYPE_BYTES, read_header
from lf_export.checkpoint.index import INDEX_NAME, contained, open_checkpoint
from lf_export.checkpoint.reader import TORCH_DTYPES, read
from lf_export.checkpoint.writer import write_safetensors
from lf_export.errors import InputError

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(lambda name: name != "__metadata__")
shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
layouts = st.dictionaries(names, st.tuples(st.sampled_from(sorted(DTYPE_BYTES)), shapes), max_size=5)
strings = st.dictionaries(names, st.text(st.characters(codec="utf-8"), max_size=8), max_size=3)
quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def nbytes(dtype: str, shape: tuple[int, ...]) -> int:
    return DTYPE_BYTES[dtype] * torch.Size(shape).numel()


def write(path: Path, layout: dict[str, tuple[str, tuple[int, ...]]], metadata: dict[str, str], seed: int) -> bytes:
    """Write a file of random bytes; returns the data."""
    path.unlink(missing_ok=True)
    total = sum(nbytes(*entry) for entry in layout.values())
    data = torch.randint(0, 2, (total,), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    rows = [(name, dtype, shape) for name, (dtype, shape) in layout.items()]
    write_safetensors(path, rows, [data.numpy().tobytes()], metadata)
    return data.numpy().tobytes()


@quick
@given(layout=layouts, metadata=strings, seed=st.integers(0, 1000))
def test_what_is_written_is_read_by_us_and_by_the_safetensors_library(
    tmp_path: Path, layout: dict[str, tuple[str, tuple[int, ...]]], metadata: dict[str, str], seed: int
) -> None:
    path = tmp_path / "x.safetensors"
    data = write(path, layout, metadata, seed)
    header = read_header(path)
    assert {info.name: (info.dtype, info.shape) for info in header.tensors} == layout
    assert header.metadata == metadata
    by_name = {info.name: info for info in header.tensors}
    position = 0
    for name, (dtype, shape) in layout.items():
        tensor = read(by_name[name])
        assert (tensor.dtype, tuple(tensor.shape)) == (TORCH_DTYPES[dtype], shape)
        assert tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes() == data[position:][: tensor.nbytes]
        position += tensor.nbytes
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == set(layout)


def is_refused_or_read(path: Path) -> bool:
    """Whether our parser takes the file; anything but an InputError is a failure."""
    try:
        header = read_header(path)
    except InputError:
        return False
    end = path.stat().st_size
    assert all(0 < info.start <= info.start + info.nbytes <= end for info in header.tensors)
    return True


def library_takes(path: Path) -> bool:
    try:
        with safe_open(path, "pt"):
            return True
    except (SafetensorError, OSError):
        return False


@quick
@given(
    layout=layouts,
    edits=st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=3)), min_size=1, max_size=4),
    cut=st.integers(0, 40),
)
def test_damaged_bytes_are_refused_or_harmless(
    tmp_path: Path, layout: dict[str, tuple[str, tuple[int, ...]]], edits: list[tuple[int, bytes]], cut: int
) -> None:
    path = tmp_path / "x.safetensors"
    write(path, layout, {}, 0)
    content = bytearray(path.read_bytes())
    for at, replacement in edits:
        start = at % len(content)
        content[start : start + len(replacement)] = replacement
    path.write_bytes(content[: len(content) - cut])
    if is_refused_or_read(path):
        assert library_takes(path), "we read a file that the safetensors library refuses"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 40) | st.floats() | st.sampled_from(["F32", "U8", "BF16", "x"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["U8", "F32", "BF16"]) | json_values,
        "shape": st.lists(st.integers(-1, 4), max_size=3) | json_values,
        "data_offsets": st.lists(st.integers(-1, 40), min_size=2, max_size=2) | json_values,
    }
)


@quick
@given(
    header=st.dictionaries(names | st.just("__metadata__"), entries | json_values, max_size=4) | json_values,
    data=st.binary(max_size=40),
)
def test_any_json_in_a_header_is_refused_or_harmless(tmp_path: Path, header: Any, data: bytes) -> None:
    text = json.dumps(header).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    if is_refused_or_read(path):
        assert library_takes(path), "we read a file that the safetensors library refuses"


@quick
@given(content=st.binary(max_size=200))
def test_any_bytes_are_refused_or_harmless(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    is_refused_or_read(tmp_path / "x.safetensors")


paths = st.lists(st.sampled_from(["..", ".", "a", "b", "link", "", "/", "x\0"]), min_size=1, max_size=5).map("/".join)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (tmp_path / "a").write_text("outside", encoding="utf-8")
    (root / "link").symlink_to(tmp_path)
    (root / "b").symlink_to(root / "a")
    return root


@quick
@given(name=paths)
def test_a_name_leads_into_the_folder_or_nowhere(tree: Path, name: str) -> None:
    try:
        path = contained(tree, name)
    except InputError:
        return
    assert path.resolve().is_relative_to(tree.resolve())
    assert path.exists()


@quick
@given(index=st.fixed_dictionaries({}, optional={"weight_map": json_values, "metadata": json_values}) | json_values)
def test_any_json_in_an_index_is_an_input_error(tmp_path: Path, index: Any) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / INDEX_NAME).write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(InputError):
        open_checkpoint(tmp_path)


@quick
@given(
    heights=st.integers(1, 9),
    width=st.integers(1, 4),
    first=st.integers(-10, 10),
    count=st.none() | st.integers(-10, 10),
)
def test_rows_of_a_file_are_rows_of_the_tensor(
    tmp_path: Path, heights: int, width: int, first: int, count: int | None
) -> None:
    path = tmp_path / "x.safetensors"
    path.unlink(missing_ok=True)
    tensor = torch.arange(heights * width, dtype=torch.float32).view(heights, width)
    write_safetensors(path, [("x", "F32", (heights, width))], [tensor])
    take: Callable[[slice], torch.Tensor] = lambda rows: read(read_header(path).tensors[0], rows=rows)  # noqa: E731
    assert torch.equal(take(slice(first, count)), tensor[first:count])
