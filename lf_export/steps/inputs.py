"""What a step read, for its manifest: the size and sha256 of every file, and one digest over these."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lf_export.checkpoint.carry import CONFIG_NAME, companion_names
from lf_export.checkpoint.digests import file_facts, input_facts
from lf_export.checkpoint.index import INDEX_NAME, Checkpoint
from lf_export.provenance import digest_of
from lf_export.steps.sources import shown_path

_CALIBRATION_FILES = ("calibration.json", "tokens.npz")


def model_inputs(checkpoint: Checkpoint, threads: int = 1) -> dict[str, Any]:
    """The files of a model folder that a merge or a quantization reads: weights, index, config, tokenizer, licences."""
    names = [checkpoint.relative(shard) for shard in checkpoint.shards]
    names += [INDEX_NAME] if checkpoint.index is not None else []
    names += [CONFIG_NAME, *companion_names(checkpoint.root)]
    return {"name": checkpoint.root.resolve().name, **input_facts(checkpoint.root, names, threads)}


def adapter_inputs(folder: Path) -> dict[str, Any]:
    """The files of an adapter: its config, its weights, and what it carries of a tokenizer and licences."""
    weights = [path.name for path in folder.glob("adapter_model*") if path.suffix in {".safetensors", ".json"}]
    names = ["adapter_config.json", *weights, *companion_names(folder)]
    return {"name": folder.resolve().name, **input_facts(folder, names)}


def calibration_inputs(folder: Path) -> dict[str, Any]:
    """The files of a calibration folder."""
    return input_facts(folder, _CALIBRATION_FILES)


def data_inputs(paths: Iterable[Path]) -> dict[str, Any]:
    """Data files, each by its name, or as `shipped:NAME`; two of one name are numbered."""
    files: dict[str, Any] = {}
    for path in paths:
        name = shown_path(path)
        while name in files:
            name += "+"
        files[name] = file_facts(path)
    return {"digest": digest_of({name: facts["sha256"] for name, facts in files.items()}), "files": files}
