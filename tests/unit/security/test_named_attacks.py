import json
import os
from pathlib import Path

import pytest

from lf_export.checkpoint.header import read_header
from lf_export.checkpoint.index import INDEX_NAME, open_checkpoint
from lf_export.checkpoint.json_file import MAX_DEPTH, parse_json, read_json
from lf_export.errors import InputError
from lf_export.recipe.load import load_recipe


def _header(folder: Path, value: object) -> Path:
    text = json.dumps(value).encode()
    (folder / "w.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    return folder / "w.safetensors"


def _sharded(folder: Path, file: str) -> Path:
    (folder / "config.json").write_text("{}")
    (folder / INDEX_NAME).write_text(json.dumps({"weight_map": {"w": file}}))
    return folder


@pytest.mark.parametrize("name", ["../w.safetensors", "/etc/passwd", "a/../../w.safetensors"])
def test_an_index_cannot_lead_out_of_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="leads outside"):
        open_checkpoint(_sharded(tmp_path, name))


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "secret").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    (tmp_path / "model" / "w.safetensors").symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match="a link that leads outside"):
        open_checkpoint(_sharded(tmp_path / "model", "w.safetensors"))


def test_half_a_surrogate_pair_as_a_file_name_is_an_error_that_prints(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_checkpoint(_sharded(tmp_path, "\ud800"))
    assert caught.value.message.encode("utf-8")


def test_a_pipe_named_as_weights_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="not a regular file"):
        open_checkpoint(_sharded(tmp_path, "w.safetensors"))


def test_a_pickle_named_as_weights_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(InputError, match="is a pickle"):
        open_checkpoint(_sharded(tmp_path, "w.bin"))


def test_a_header_that_claims_2_to_the_60_bytes_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes((1 << 60).to_bytes(8, "little") + b"{}")
    with pytest.raises(InputError, match="at most 100,000,000"):
        read_header(tmp_path / "w.safetensors")


@pytest.mark.parametrize("shape", [[10**4000, 10**4000], [2**127] * 60, [2] * 100_000])
def test_a_shape_whose_product_is_too_long_to_print_is_refused(tmp_path: Path, shape: list[int]) -> None:
    with pytest.raises(InputError, match=r"more than 2\^128|at most 64"):
        read_header(_header(tmp_path, {"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}))


@pytest.mark.parametrize("depth", [MAX_DEPTH + 2, 100_000])
def test_deep_json_is_refused(depth: int) -> None:
    with pytest.raises(InputError, match="nested deeper"):
        parse_json(b"[" * depth + b"]" * depth, "x.json")


def test_json_at_the_bound_of_depth_is_read() -> None:
    assert parse_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, "x.json")


@pytest.mark.parametrize("text", [b'{"a":1,"a":2}', b'{"a":NaN}', b"[-Infinity]", b'"\xff"', b"1" * 5000, b""])
def test_json_that_readers_would_disagree_on_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "x.json").write_bytes(text)
    with pytest.raises(InputError, match=r"x\.json"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
        "a: " + "[" * 60 + "]" * 60,
        "a: " + "[" * 100_000,
        "a: !!python/object/apply:os.system ['false']\n",
        "a: !!bool x\n",
        "a: 2020-99-99\n",
    ],
    ids=["aliases", "deep", "very deep", "python object", "wrong tag", "no such day"],
)
def test_yaml_that_unfolds_or_runs_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(InputError, match=r"r\.yaml"):
        load_recipe(tmp_path / "r.yaml")
