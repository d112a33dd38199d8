"""Importance matrices from files: what is read, that it stands in for a calibration pass, and what is refused."""

import struct
from pathlib import Path
from typing import Any

import gguf
import gguf_folders
import numpy as np
import pytest
from pydantic import ValidationError

from lf_export.checkpoint.index import open_checkpoint
from lf_export.errors import InputError
from lf_export.formats.gguf import FORMAT, GgufOptions
from lf_export.formats.gguf_imatrix_read import read_imatrix
from lf_export.provenance import sha256_file

NAMES = {"blk.0.attn_q.weight": 64, "blk.0.ffn_down.weight": 96}


def entries() -> dict[str, np.ndarray]:
    return {name: gguf_folders.arithmetic((width,), 3, 1.0) ** 2 * 50 for name, width in NAMES.items()}


def as_llama_cpp(path: Path, sums: dict[str, np.ndarray], count: float = 25.0, kind: str = "imatrix") -> Path:
    """The form of llama.cpp's imatrix tool, by the gguf package: sums [matrices, width] and counts [matrices, 1]."""
    writer = gguf.GGUFWriter(path, arch="")
    writer.add_type(kind)
    writer.add_array("imatrix.datasets", ["wiki.train.raw"])
    writer.add_uint32("imatrix.chunk_count", 2)
    writer.add_uint32("imatrix.chunk_size", 512)
    for name, values in sums.items():
        writer.add_tensor(f"{name}.in_sum2", values.reshape(1, -1))
        writer.add_tensor(f"{name}.counts", np.full((1, 1), count, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def as_legacy(path: Path, sums: dict[str, np.ndarray], calls: int = 5) -> Path:
    """The older form: count, then name, calls, width and values, then what it was made of."""
    data = struct.pack("<i", len(sums))
    for name, values in sums.items():
        raw = name.encode()
        data += struct.pack(f"<i{len(raw)}sii", len(raw), raw, calls, len(values)) + values.astype("<f4").tobytes()
    path.write_bytes(data + struct.pack("<ii", 2, 4) + b"wiki")
    return path


def test_a_file_of_llama_cpp_has_its_mean_squares(tmp_path: Path) -> None:
    path, sums = tmp_path / "imatrix.gguf", entries()
    found = read_imatrix(as_llama_cpp(path, sums | {"output.weight": np.ones(4, np.float32)}), NAMES)
    for name, values in sums.items():
        assert np.array_equal(found.imatrix.importance(name), values / np.float32(25))
    expected = {"source": path.name, "sha256": sha256_file(path), "entries": 2, "datasets": ["wiki.train.raw"]}
    assert found.facts == expected


def test_the_older_form_is_divided_by_its_calls(tmp_path: Path) -> None:
    sums = entries()
    found = read_imatrix(as_legacy(tmp_path / "imatrix.dat", sums), NAMES)
    for name, values in sums.items():
        assert np.array_equal(found.imatrix.importance(name), values / np.float32(5))


@pytest.mark.parametrize("method", ["imatrix", "gptq"])
def test_our_own_file_gives_the_bytes_of_the_pass_that_made_it(tmp_path: Path, method: Any) -> None:
    folder = gguf_folders.arithmetic_folder(tmp_path / "m", "fallback")
    checkpoint = open_checkpoint(folder)
    for name in ("pass", "file"):
        (tmp_path / name).mkdir()
    made = FORMAT.open(checkpoint, tmp_path / "pass", GgufOptions(method="imatrix"), "abc")
    for view in gguf_folders.layer_views(checkpoint):
        made.layer(view)
    made.finish()
    path = tmp_path / "pass/imatrix.gguf"
    target = FORMAT.open(checkpoint, tmp_path / "file", GgufOptions(method=method, imatrix=path), "abc")
    assert target.needs_moments is (method == "gptq")
    if method == "gptq":
        return
    facts = target.finish()
    assert [file.name for file in (tmp_path / "file").iterdir()] == ["m-Q4_K_M.gguf"]
    assert (tmp_path / "file/m-Q4_K_M.gguf").read_bytes() == (tmp_path / "pass/m-Q4_K_M.gguf").read_bytes()
    assert facts["imatrix"]["sha256"] == sha256_file(path)
    assert facts["imatrix"]["datasets"] == ["lf-export calibration abc"]
    assert facts["files"]["m-Q4_K_M.gguf"]["imatrix"] is True


def test_the_gguf_package_reads_what_we_read(tmp_path: Path) -> None:
    path = as_llama_cpp(tmp_path / "imatrix.gguf", entries(), count=7.0)
    theirs = {tensor.name: tensor.data for tensor in gguf.GGUFReader(path).tensors}
    found = read_imatrix(path, NAMES).imatrix
    for name in NAMES:
        mean = theirs[f"{name}.in_sum2"][0] / theirs[f"{name}.counts"][0]
        assert np.array_equal(found.importance(name), mean)


@pytest.mark.parametrize("write", [as_llama_cpp, as_legacy])
def test_missing_tensors_and_other_shapes_are_all_named(tmp_path: Path, write: Any) -> None:
    path = write(tmp_path / "imatrix", entries())
    with pytest.raises(InputError) as caught:
        read_imatrix(path, {"blk.0.attn_q.weight": 128, "blk.0.ffn_down.weight": 96, "blk.1.attn_q.weight": 64})
    assert caught.value.message.splitlines() == [
        f"{path}: blk.0.attn_q.weight has 64 channels, expected 128",
        f"{path}: blk.1.attn_q.weight is missing",
    ]


@pytest.mark.parametrize("write", [as_llama_cpp, as_legacy])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_values_that_are_no_sums_of_squares_are_refused(tmp_path: Path, write: Any, value: float) -> None:
    sums = entries()
    sums["blk.0.ffn_down.weight"][17] = value
    with pytest.raises(InputError, match=r"blk\.0\.ffn_down\.weight: channel 17 is .*, expected a sum of squares"):
        read_imatrix(write(tmp_path / "imatrix", sums), NAMES)


@pytest.mark.parametrize("write", [as_llama_cpp, as_legacy])
def test_a_tensor_that_no_token_reached_is_refused(tmp_path: Path, write: Any) -> None:
    with pytest.raises(InputError, match="no token reached it"):
        read_imatrix(write(tmp_path / "imatrix", entries(), 0), NAMES)


@pytest.mark.parametrize("write", [as_llama_cpp, as_legacy])
def test_a_file_that_is_cut_anywhere_is_refused(tmp_path: Path, write: Any) -> None:
    path = write(tmp_path / "imatrix", entries())
    data = path.read_bytes()
    end = len(data) - (12 if write is as_legacy else 28)  # what the older form was made of; the last tensor's padding
    for size in [*range(0, end, 61), end - 1]:
        path.write_bytes(data[:size])
        with pytest.raises(InputError):
            read_imatrix(path, NAMES)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_imatrix(tmp_path / "none.gguf", NAMES)
    model = as_llama_cpp(tmp_path / "model.gguf", entries(), kind="model")
    with pytest.raises(InputError, match="a GGUF of type 'model', expected an importance matrix"):
        read_imatrix(model, NAMES)
    for data in (
        b"PK\x03\x04 something",
        struct.pack("<ii", 1, -5) + b"x" * 40,
        struct.pack("<ii3s", 1, 3, b"\xff" * 3),
    ):
        (tmp_path / "other").write_bytes(data + bytes(64))
        with pytest.raises(InputError, match=r"older form|truncated"):
            read_imatrix(tmp_path / "other", NAMES)


def test_an_importance_matrix_for_nothing_that_takes_one_is_refused(tmp_path: Path) -> None:
    folder = gguf_folders.arithmetic_folder(tmp_path / "m", "fallback")
    path = as_llama_cpp(tmp_path / "imatrix.gguf", entries())
    with pytest.raises(InputError, match="nothing takes an importance matrix, method is rtn"):
        FORMAT.size(open_checkpoint(folder), GgufOptions(types=("Q4_0",), method="rtn", imatrix=path))
    with pytest.raises(InputError, match=r"blk\.0\.attn_k\.weight is missing"):
        FORMAT.size(open_checkpoint(folder), GgufOptions(types=("Q4_0",), method="imatrix", imatrix=path))
    with pytest.raises(ValidationError):
        GgufOptions(imatrix=3)
