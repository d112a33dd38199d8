"""Where tensors lie in a GGUF, read without its library, and a header that lies is an error by name."""

import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lf_export.checkpoint.regions import regions_of
from lf_export.errors import InputError


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "a.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_array("tokenizer.ggml.tokens", ["<s>", "é", "x" * 40])
    writer.add_array("tokenizer.ggml.scores", [0.5, 1.5])
    writer.add_custom_alignment(64)
    writer.add_tensor("one", np.ones((3, 5), np.float32))
    writer.add_tensor("two", np.zeros(7, np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_tensors_lie_where_the_library_finds_them(gguf: Path) -> None:
    header, *tensors = regions_of(gguf)
    expected = [(tensor.name, int(tensor.data_offset)) for tensor in GGUFReader(gguf).tensors]
    assert [(region.name, region.start) for region in tensors] == expected
    assert (header.name, header.start, header.stop) == ("header", 0, tensors[0].start)
    assert [region.stop for region in tensors] == [tensors[1].start, gguf.stat().st_size]


def test_other_files_have_no_regions(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    assert regions_of(tmp_path / "config.json") == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GGUF",
        b"GGUX" + bytes(40),
        b"GGUF" + struct.pack("<IQQ", 9, 0, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**62),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 9, 2**40),
        b"GGUF" + struct.pack("<IQQQ", 3, 1, 0, 1) + b"t" + struct.pack("<I", 2**31),
        b"GGUF" + struct.pack("<IQQQ", 3, 1, 0, 1) + b"t" + struct.pack("<IQIQ", 1, 8, 0, 2**50),
    ],
)
def test_a_header_that_lies_is_an_error_by_name(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.gguf").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.gguf: "):
        regions_of(tmp_path / "a.gguf")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_header_gives_regions_or_an_error_and_nothing_else(
    gguf: Path, tmp_path: Path, data: st.DataObject
) -> None:
    good = bytearray(gguf.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "b.gguf").write_bytes(good[: data.draw(st.integers(0, len(good)))])
    try:
        regions = regions_of(tmp_path / "b.gguf")
    except InputError:
        return
    assert all(region.start <= region.stop for region in regions)
