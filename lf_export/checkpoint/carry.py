"""What goes along with the weights: config, tokenizer, chat template and licences, copied file by file."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from lf_export.checkpoint.index import contained, read_object
from lf_export.errors import InputError
from lf_export.provenance import public_name

CONFIG_NAME = "config.json"

_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.tiktoken",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_VOCABULARIES = ("tokenizer.json", "tokenizer.model*", "vocab.json", "vocab.txt", "*.tiktoken", "*.model")
_COMPANIONS = (
    *_TOKENIZER,
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
)
_LICENCES = ("LICENSE*", "LICENCE*", "COPYING*", "NOTICE*", "USE_POLICY*")
_TEMPLATE_FOLDERS = ("chat_templates", "additional_chat_templates")
_CONFIGS = (CONFIG_NAME, "tokenizer_config.json", "generation_config.json", "processor_config.json")
# What libraries write of the folder that a model was loaded from.
_PLACES = ("_name_or_path", "name_or_path", "tokenizer_file", "vocab_file", "merges_file", "special_tokens_map_file")
_NEVER = (".py", ".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx")


@dataclass(frozen=True, slots=True)
class Carried:
    """Which files were copied, and which Python files were left behind because their code is never run."""

    copied: tuple[str, ...]
    code: tuple[str, ...]


def copy_companions(
    source: Path, target: Path, edit_config: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None
) -> Carried:
    """Copy a model folder's config, tokenizer, chat templates and licences into `target`; never weights or code.

    Args:
        source: the model folder.
        target: an existing folder.
        edit_config: gets the config and gives the one to write; without it config.json is copied as it is.

    Raises:
        InputError: a file is a link that leads out of the folder, or config.json is missing or not JSON.
    """
    names = companion_names(source)
    for name in names:
        path = contained(source, name)
        (target / name).parent.mkdir(exist_ok=True)
        _copy_public(path, target / name)
    config = contained(source, CONFIG_NAME)
    if edit_config is None:
        _copy_public(config, target / CONFIG_NAME)
    else:
        text = json.dumps(_without_places(dict(edit_config(read_object(config)))), indent=2, ensure_ascii=False)
        (target / CONFIG_NAME).write_text(text + "\n", encoding="utf-8")
    code = tuple(sorted(path.name for path in source.glob("*.py")))
    return Carried((CONFIG_NAME, *names), code)


def companion_names(source: Path) -> list[str]:
    """What goes along with the weights of a model folder, but for its config.json."""
    names = [path.name for path in sorted(source.iterdir()) if _is_companion(path.name) and not path.is_dir()]
    for folder in _TEMPLATE_FOLDERS:
        if (source / folder).is_dir():
            names += [f"{folder}/{path.name}" for path in sorted((source / folder).glob("*.jinja"))]
    return names


def _copy_public(source: Path, target: Path) -> None:
    """Copy a file; a config that says where it lay on the machine that saved it is written without that."""
    if source.name in _CONFIGS:
        try:
            value = read_object(source)
        except InputError:
            value = {}  # whoever loads it says what is wrong with it
        public = _without_places(value)
        if public != value:
            target.write_text(json.dumps(public, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            return
    shutil.copyfile(source, target)


def _without_places(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config whose paths of a machine's folders are only names."""
    return {
        key: public_name(value)
        if key in _PLACES and isinstance(value, str)
        else _without_places(value)
        if isinstance(value, dict)
        else value
        for key, value in config.items()
    }


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder, such as an adapter's, brings a vocabulary of its own."""
    return any(_matches(path.name, _VOCABULARIES) for path in folder.iterdir() if path.is_file())


def replace_tokenizer(source: Path, target: Path) -> tuple[str, ...]:
    """Put the tokenizer of `source` in the place of the one in `target`; a chat template stays where none comes.

    Raises:
        InputError: a file is a link that leads out of the folder.
    """
    for path in list(target.iterdir()):
        if _matches(path.name, _TOKENIZER):
            path.unlink()
    names = [
        path.name for path in sorted(source.iterdir()) if _matches(path.name, (*_TOKENIZER, "chat_template.jinja"))
    ]
    for name in names:
        _copy_public(contained(source, name), target / name)
    return tuple(names)


def copy_licences(source: Path, target: Path, label: str = "") -> tuple[str, ...]:
    """Copy licence and notice files; those of another source, such as an adapter, as `LICENSE.<label>` and so on.

    Raises:
        InputError: a file is a link that leads out of the folder.
    """
    copied = []
    for path in licence_files(source):
        name = f"{path.stem}.{label}{path.suffix}" if label else path.name
        shutil.copyfile(contained(source, path.name), target / name)
        copied.append(name)
    return tuple(copied)


def licence_files(source: Path) -> list[Path]:
    """The licence and notice files of a folder, in the order of their names."""
    return [
        path
        for path in sorted(source.iterdir())
        if _matches(path.name, _LICENCES) and not path.name.endswith(_NEVER) and path.is_file()
    ]


def _is_companion(name: str) -> bool:
    return _matches(name, _COMPANIONS + _LICENCES) and not name.endswith(_NEVER)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
