import errno
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lf_export.checkpoint.header import TensorInfo, read_header
from lf_export.checkpoint.index import open_checkpoint
from lf_export.errors import InputError, StepError
from lf_export.formats.shards import Entry, Shards

TENSORS = {
    "a": torch.arange(6, dtype=torch.int32).view(2, 3),
    "b": torch.arange(5, dtype=torch.float32).half(),
    "c": torch.arange(4, dtype=torch.float32).bfloat16(),
}
ENTRIES = [Entry("a", "I32", (2, 3)), Entry("b", "F16", (5,)), Entry("c", "BF16", (4,))]


def test_tensors_in_any_order_make_one_file_that_safetensors_reads(tmp_path: Path) -> None:
    shards = Shards(tmp_path, ENTRIES)
    for name in ("c", "a", "b"):
        shards.put(name, TENSORS[name])
    shards.finish()
    loaded = load_file(tmp_path / "model.safetensors")
    assert loaded.keys() == TENSORS.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in TENSORS.items())
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_what_does_not_fit_goes_to_numbered_shards_with_an_index(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    shards = Shards(tmp_path, ENTRIES, shard_bytes=30)
    for name, tensor in TENSORS.items():
        shards.put(name, tensor)
    shards.finish()
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == {"a": names[0], "b": names[1], "c": names[1]}
    assert index["metadata"] == {"total_size": 24 + 10 + 8}
    checkpoint = open_checkpoint(tmp_path)
    assert all(torch.equal(checkpoint.read(name), tensor) for name, tensor in TENSORS.items())


def test_a_tensor_of_another_file_is_copied_bit_for_bit(tmp_path: Path) -> None:
    save_file({"b": TENSORS["b"]}, tmp_path / "source.safetensors")
    (source,) = read_header(tmp_path / "source.safetensors").tensors
    folder = tmp_path / "out"
    folder.mkdir()
    shards = Shards(folder, ENTRIES[1:2])
    shards.copy("b", source)
    shards.finish()
    assert torch.equal(load_file(folder / "model.safetensors")["b"], TENSORS["b"])


def test_a_tensor_that_was_not_announced_or_comes_twice_is_refused(tmp_path: Path) -> None:
    shards = Shards(tmp_path, ENTRIES)
    shards.put("a", TENSORS["a"])
    for name in ("a", "z"):
        with pytest.raises(ValueError, match=f"{name} was written already, or never announced"):
            shards.put(name, TENSORS["a"])
    with pytest.raises(ValueError, match=r"b is torch\.float32"):
        shards.put("b", TENSORS["b"].float())


def test_a_tensor_that_never_came_is_named(tmp_path: Path) -> None:
    shards = Shards(tmp_path, ENTRIES)
    shards.put("a", TENSORS["a"])
    with pytest.raises(ValueError, match="never written: b, c"):
        shards.finish()


def test_no_file_stays_open_between_tensors(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    shards = Shards(tmp_path, ENTRIES)
    shards.put("a", TENSORS["a"])
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_full_disk_is_an_error_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = Shards(tmp_path, ENTRIES)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StepError, match="disk full"):
        shards.put("a", TENSORS["a"])


def test_a_source_that_is_gone_is_named(tmp_path: Path) -> None:
    shards = Shards(tmp_path, ENTRIES[1:2])
    source = TensorInfo("b", "F16", (5,), tmp_path / "gone.safetensors", 0, 10)
    with pytest.raises(InputError, match=r"gone\.safetensors: cannot be read"):
        shards.copy("b", source)
