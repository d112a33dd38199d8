"""Opening a model folder: by headers alone, never outside the folder, with every mistake named."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lf_export.checkpoint.index import INDEX_NAME, open_checkpoint
from lf_export.errors import InputError

Make = Callable[..., Path]
Tensors = Callable[..., dict[str, torch.Tensor]]


def edit_index(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / INDEX_NAME
    index = json.loads(path.read_text(encoding="utf-8"))
    change(index)
    path.write_text(json.dumps(index), encoding="utf-8")


@pytest.mark.parametrize("shards", [1, 3])
def test_a_folder_gives_its_tensors_config_and_shards(make_base: Make, base_tensors: Tensors, shards: int) -> None:
    base = open_checkpoint(make_base(shards=shards))
    expected = base_tensors()
    assert base.tensors.keys() == expected.keys()
    assert all(torch.equal(base.read(name), tensor) for name, tensor in expected.items())
    assert base.config["model_type"] == "llama"
    assert len(base.shards) == shards
    assert base.nbytes == sum(tensor.nbytes for tensor in expected.values())
    assert base.tied


def test_a_model_with_an_output_layer_of_its_own_is_not_tied(make_base: Make, base_tensors: Tensors) -> None:
    assert not open_checkpoint(make_base(base_tensors() | {"lm_head.weight": torch.zeros(10, 4)})).tied
    assert not open_checkpoint(make_base(name="other", tie_word_embeddings=False)).tied


def test_opening_imports_no_torch(make_base: Make) -> None:
    code = (
        "import sys; from lf_export.checkpoint.index import open_checkpoint;"
        "open_checkpoint(sys.argv[1]); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, make_base()], check=False).returncode == 0


def test_an_unknown_tensor_is_named(make_base: Make) -> None:
    with pytest.raises(InputError, match=r"no tensor 'lm_head\.weight'"):
        open_checkpoint(make_base()).read("lm_head.weight")


@pytest.mark.parametrize("name", ["../outside.safetensors", "sub/../../outside.safetensors", "", "a\0b.safetensors"])
def test_an_index_that_points_outside_its_folder_is_refused(make_base: Make, name: str) -> None:
    folder = make_base(shards=2)
    shutil.copy(folder / "model-00001-of-00002.safetensors", folder.parent / "outside.safetensors")
    edit_index(folder, lambda index: index["weight_map"].update({"model.embed_tokens.weight": name}))
    with pytest.raises(InputError, match="leads outside this folder"):
        open_checkpoint(folder)


def test_an_absolute_name_in_an_index_is_refused(make_base: Make) -> None:
    folder = make_base(shards=2)
    inside = str(folder / "model-00001-of-00002.safetensors")
    edit_index(folder, lambda index: index["weight_map"].update({"model.embed_tokens.weight": inside}))
    with pytest.raises(InputError, match="leads outside this folder"):
        open_checkpoint(folder)


@pytest.mark.parametrize("shards", [1, 2])
def test_a_link_that_leaves_the_folder_is_refused(make_base: Make, shards: int) -> None:
    folder = make_base(shards=shards)
    shard = next(folder.glob("*.safetensors"))
    outside = shard.rename(folder.parent / "outside.safetensors")
    shard.symlink_to(outside)
    with pytest.raises(InputError, match="a link that leads outside this folder"):
        open_checkpoint(folder)


def test_a_snapshot_of_the_hub_s_cache_is_made_of_links_into_its_blobs(
    make_base: Make, base_tensors: Tensors, tmp_path: Path
) -> None:
    folder = make_base()
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    blobs = tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in folder.iterdir():
        shutil.copy(path, blobs / path.name)
        (snapshot / path.name).symlink_to(Path("../../blobs") / path.name)
    assert open_checkpoint(snapshot).tensors.keys() == base_tensors().keys()


def test_a_circle_of_links_is_refused(make_base: Make) -> None:
    folder = make_base()
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(folder / "config.json")
    with pytest.raises(InputError, match="cannot be read"):
        open_checkpoint(folder)


def test_missing_and_damaged_shards_are_named_together(make_base: Make) -> None:
    folder = make_base(shards=3)
    (folder / "model-00001-of-00003.safetensors").unlink()
    (folder / "model-00003-of-00003.safetensors").write_bytes(b"short")
    with pytest.raises(InputError) as caught:
        open_checkpoint(folder)
    lines = caught.value.message.splitlines()
    assert "model-00001-of-00003.safetensors: no such file" in lines[0]
    assert "model-00003-of-00003.safetensors: truncated" in lines[1]


def test_tensors_that_the_index_promises_in_vain_are_listed_and_counted(make_base: Make) -> None:
    folder = make_base(shards=2)
    file = "model-00001-of-00002.safetensors"
    edit_index(folder, lambda index: index["weight_map"].update({f"ghost.{i}": file for i in range(20)}))
    with pytest.raises(InputError) as caught:
        open_checkpoint(folder)
    lines = caught.value.message.splitlines()
    assert f"ghost.0 is not in {file}" in lines[0]
    assert lines[-1] == "… and 8 more"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "index.json:1: not JSON"),
        ("[]", "a JSON object was expected"),
        ("{}", "expected a weight_map"),
        ('{"weight_map": {"a": 1}}', "expected a weight_map"),
        ('{"weight_map": {"a": "x.bin"}}', "x.bin is a pickle"),
        ("[" * 200_000, "not JSON"),
        ('{"a": ' + "1" * 5000 + "}", "not JSON"),
    ],
)
def test_an_index_that_is_none_is_refused(make_base: Make, text: str, says: str) -> None:
    folder = make_base(shards=2)
    (folder / INDEX_NAME).write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=says):
        open_checkpoint(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "weights.pth"])
def test_pickles_are_never_loaded(make_base: Make, name: str) -> None:
    folder = make_base()
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(InputError, match="the weights are pickles") as caught:
        open_checkpoint(folder)
    assert "can run code" in (caught.value.hint or "")


def test_a_folder_that_is_no_model_says_what_it_lacks(make_base: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        open_checkpoint(tmp_path / "nothing")
    folder = make_base()
    with pytest.raises(InputError, match="not a folder"):
        open_checkpoint(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    with pytest.raises(InputError, match=r"without model\.safetensors or"):
        open_checkpoint(folder)
    (folder / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match="no weights"):
        open_checkpoint(folder)
    (folder / "config.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not UTF-8"):
        open_checkpoint(folder)
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"has a config\.json"):
        open_checkpoint(folder)
