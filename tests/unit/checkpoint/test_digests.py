"""A file is read once for all its digests; a digest that is known is taken only where nothing was written since."""

import hashlib
import os
from pathlib import Path
from zlib import crc32

import pytest
import torch
from safetensors.torch import save_file

from lf_export.checkpoint.digests import file_facts, folder_facts, input_facts, listed, where_changed
from lf_export.errors import InputError
from lf_export.provenance import write_manifest


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.arange(6.0), "b": torch.ones(3, 5), "c": torch.zeros(0)}, path)
    return path


def test_the_digest_and_the_checksums_are_those_of_the_bytes(weights: Path) -> None:
    data = weights.read_bytes()
    facts = file_facts(weights, parts=True)
    assert facts["sha256"] == hashlib.sha256(data).hexdigest()
    assert facts["bytes"] == len(data)
    start = facts["parts"]["header_bytes"]
    assert start == 8 + int.from_bytes(data[:8], "little")
    sums = [data[:start], data[start : start + 24], data[start + 24 : start + 24 + 60], b""]
    stored = facts["parts"]["crc32"]
    found = [stored[at : at + 8] for at in range(0, len(stored), 8)]
    assert sorted(found) == sorted(f"{crc32(part):08x}" for part in sums)


def test_a_file_that_is_no_weight_file_has_a_digest_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"not one")
    facts = file_facts(tmp_path / "model.gguf", parts=True)
    assert facts == {"bytes": 7, "sha256": hashlib.sha256(b"not one").hexdigest()}
    (tmp_path / "model.gguf").write_bytes(b"not two")
    assert where_changed(tmp_path / "model.gguf", facts) == "its 7 bytes have another sha256"


@pytest.mark.parametrize("parts", [None, 3, {}, {"header_bytes": True, "crc32": "0" * 8}, {"header_bytes": 1}])
def test_checksums_that_are_none_are_not_used(weights: Path, parts: object) -> None:
    facts = {**file_facts(weights), "parts": parts}
    assert "have another sha256" in where_changed(weights, facts)


def test_a_known_digest_is_taken_where_nothing_was_written_since(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"aa")
    write_manifest(tmp_path, {"kind": "merged", "files": {"a": {"bytes": 2, "sha256": "known"}}})
    assert input_facts(tmp_path, ["a"])["files"]["a"]["sha256"] == "known"
    later = (tmp_path / "lf-export.json").stat().st_mtime_ns + 1
    os.utime(tmp_path / "a", ns=(later, later))
    assert input_facts(tmp_path, ["a"])["files"]["a"]["sha256"] == hashlib.sha256(b"aa").hexdigest()
    write_manifest(tmp_path, {"kind": "merged", "files": {"a": {"bytes": 3, "sha256": "known"}}})
    assert input_facts(tmp_path, ["a"])["files"]["a"]["sha256"] == hashlib.sha256(b"aa").hexdigest()


def test_the_digest_over_several_files_counts_names_and_contents(tmp_path: Path) -> None:
    for name, text in (("a", "x"), ("b", "y"), ("c", "x")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    digests = {tuple(names): input_facts(tmp_path, names, threads=2)["digest"] for names in (["a"], ["c"], ["a", "b"])}
    assert len(set(digests.values())) == 3
    assert input_facts(tmp_path, ["b", "a", "a"])["digest"] == digests["a", "b"]
    with pytest.raises(InputError, match="d: cannot be read: No such file"):
        input_facts(tmp_path, ["d"])


def test_a_folders_links_are_listed_and_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "a").write_bytes(b"a")
    (folder / ".hidden").write_bytes(b"h")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"s")
    (folder / "out").symlink_to(tmp_path / "outside")
    (folder / "circle").symlink_to(folder)
    assert [name for name, _ in listed(folder)] == [".hidden", "circle", "out", "inner/a"]
    assert list(folder_facts(folder)) == ["inner/a"]
    assert list(folder_facts(folder, hidden=True, without={"inner"})) == [".hidden"]
