"""What goes along with the weights, and what never does."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lf_export.checkpoint.carry import copy_companions, copy_licences, has_tokenizer, replace_tokenizer
from lf_export.errors import InputError

GOES = [
    "added_tokens.json",
    "additional_chat_templates/tools.jinja",
    "chat_template.jinja",
    "generation_config.json",
    "LICENSE",
    "LICENSE.txt",
    "merges.txt",
    "NOTICE",
    "preprocessor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "USE_POLICY.md",
    "vocab.json",
]
STAYS = [
    "README.md",
    "lf-export.json",
    "LICENSE.py",
    "model.safetensors",
    "modeling_llama.py",
    "optimizer.pt",
    "pytorch_model.bin",
    "training_args.bin",
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    for name in GOES + STAYS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name, encoding="utf-8")
    (folder / "LICENSES").mkdir()
    (folder / "config.json").write_text('{"dtype": "float32", "hidden_size": 4}', encoding="utf-8")
    (tmp_path / "target").mkdir()
    return folder


def test_companions_go_along_and_weights_and_code_stay(source: Path) -> None:
    target = source.parent / "target"
    carried = copy_companions(source, target)
    found = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert found == {"config.json", *GOES} == set(carried.copied)
    assert all((target / name).read_text(encoding="utf-8") == name for name in GOES)
    assert (target / "config.json").read_bytes() == (source / "config.json").read_bytes()
    assert carried.code == ("LICENSE.py", "modeling_llama.py")


def test_the_config_may_be_edited_on_the_way(source: Path) -> None:
    copy_companions(source, source.parent / "target", lambda config: {**config, "dtype": "bfloat16"})
    edited = json.loads((source.parent / "target" / "config.json").read_text(encoding="utf-8"))
    assert edited == {"dtype": "bfloat16", "hidden_size": 4}


@pytest.mark.parametrize("copy", [copy_companions, lambda source, target: copy_licences(source, target, "adapter")])
def test_a_link_to_a_file_elsewhere_is_not_published(source: Path, copy: Callable[[Path, Path], object]) -> None:
    secret = source.parent / "secret"
    secret.write_text("secret", encoding="utf-8")
    (source / "NOTICE").unlink()
    (source / "NOTICE").symlink_to(secret)
    with pytest.raises(InputError, match="leads outside this folder"):
        copy(source, source.parent / "target")


def test_licences_of_another_source_are_labelled(source: Path) -> None:
    target = source.parent / "target"
    names = copy_licences(source, target, "adapter")
    assert names == ("LICENSE.adapter", "LICENSE.adapter.txt", "NOTICE.adapter", "USE_POLICY.adapter.md")
    assert (target / "NOTICE.adapter").read_text(encoding="utf-8") == "NOTICE"


def test_a_tokenizer_takes_the_place_of_another_and_the_chat_template_stays(tmp_path: Path) -> None:
    source, target = tmp_path / "adapter", tmp_path / "merged"
    source.mkdir()
    target.mkdir()
    for name in ("vocab.json", "merges.txt", "tokenizer.json", "chat_template.jinja", "config.json"):
        (target / name).write_text("base", encoding="utf-8")
    assert not has_tokenizer(source)
    for name in ("tokenizer.json", "tokenizer_config.json", "adapter_config.json"):
        (source / name).write_text("adapter", encoding="utf-8")
    assert has_tokenizer(source)
    assert replace_tokenizer(source, target) == ("tokenizer.json", "tokenizer_config.json")
    assert {path.name: path.read_text(encoding="utf-8") for path in target.iterdir()} == {
        "tokenizer.json": "adapter",
        "tokenizer_config.json": "adapter",
        "chat_template.jinja": "base",
        "config.json": "base",
    }
