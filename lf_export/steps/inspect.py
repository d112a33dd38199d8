"""What a path holds: a checkpoint, an adapter, an artifact or a GGUF file. Only headers are read."""

import json
from collections import Counter
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from lf_export.checkpoint.adapter import open_adapter
from lf_export.checkpoint.carry import licence_files
from lf_export.checkpoint.gguf_parts import is_later_part, parts_of
from lf_export.checkpoint.index import Checkpoint, open_checkpoint
from lf_export.checkpoint.json_file import read_object
from lf_export.errors import InputError, MissingError
from lf_export.provenance import read_manifest
from lf_export.steps.plan import bytes_text

_GGUF_MAGIC = b"GGUF"
_ONNX_CONFIG = "genai_config.json"


def inspect_path(path: Path) -> dict[str, Any]:
    """Facts about what lies at `path`, as JSON values; `kind` says what it is.

    Raises:
        InputError: nothing is there, or it is none of the things that lf-export knows.
        MissingError: it is a GGUF file and the `gguf` package is not installed.
    """
    if path.is_file():
        return _gguf(path)
    if not path.is_dir():
        raise InputError(f"{path}: nothing is there")
    if (path / "adapter_config.json").is_file():
        return _adapter(path)
    if (path / "config.json").is_file():
        return _checkpoint(open_checkpoint(path))
    if (path / _ONNX_CONFIG).is_file():
        return _onnx(path)
    files = sorted(file for file in path.glob("*.gguf") if file.name != "imatrix.gguf" and not is_later_part(file))
    if len(files) == 1:
        return _gguf(files[0]) | {"path": str(path), **_beside(path)}
    if len(files) > 1:
        raise InputError(f"{path}: holds {len(files)} GGUF files, expected one", f"lf-export inspect {files[0]}")
    raise InputError(f"{path}: expected a checkpoint (config.json), an adapter (adapter_config.json) or a GGUF file")


def _checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    config = checkpoint.config
    quantization = config.get("quantization_config")
    template = _template(checkpoint.root)
    return {
        "kind": "checkpoint" if quantization is None else f"{quantization.get('quant_method', 'quantized')} checkpoint",
        "path": str(checkpoint.root),
        "architecture": (config.get("architectures") or [config.get("model_type", "unknown")])[0],
        "model_type": config.get("model_type"),
        "layers": config.get("num_hidden_layers"),
        "hidden_size": config.get("hidden_size"),
        "vocab_size": config.get("vocab_size"),
        "parameters": _parameters(checkpoint, quantization),
        "dtypes": dict(Counter(info.dtype for info in checkpoint.tensors.values()).most_common()),
        "tensors": len(checkpoint.tensors),
        "shards": len(checkpoint.shards),
        "bytes": sum(info.nbytes for info in checkpoint.tensors.values()),
        "quantization": quantization,
        "tied_embeddings": bool(config.get("tie_word_embeddings", False)),
        "chat_template": None if template is None else ("with tools" if "tools" in template else "without tools"),
        **_beside(checkpoint.root),
    }


def _parameters(checkpoint: Checkpoint, quantization: Mapping[str, Any] | None) -> int:
    """How many weights the model has; a packed int32 counts as the weights that it holds.

    Linears of a GPTQ folder may differ in bits: the length of `g_idx` says how many inputs one has.
    """
    packed = 32 // int(quantization["bits"]) if quantization and "bits" in quantization else 1
    total = 0
    for name, info in checkpoint.tensors.items():
        if name.endswith(".qweight"):
            inputs = checkpoint.tensors.get(f"{name.removesuffix('.qweight')}.g_idx")
            total += prod(info.shape) * packed if inputs is None else inputs.shape[0] * info.shape[1]
        elif not name.endswith((".qzeros", ".scales", ".g_idx")):
            total += prod(info.shape)
    return total


def _adapter(path: Path) -> dict[str, Any]:
    adapter = open_adapter(path)  # refuses a damaged config
    config = read_object(path / "adapter_config.json")
    return {
        "kind": "adapter",
        "path": str(path),
        "peft_type": config.get("peft_type"),
        "base_model": config.get("base_model_name_or_path"),
        "rank": config.get("r"),
        "alpha": config.get("lora_alpha"),
        "rslora": bool(config.get("use_rslora", False)),
        "target_modules": sorted(config.get("target_modules") or []),
        "modules": len(adapter.modules),
        "bytes": sum(file.stat().st_size for file in path.glob("*.safetensors")),
        **_beside(path),
    }


def _onnx(path: Path) -> dict[str, Any]:
    try:
        model = json.loads((path / _ONNX_CONFIG).read_text(encoding="utf-8"))["model"]
        decoder = model["decoder"]
        return {
            "kind": "onnx",
            "path": str(path),
            "model_type": model.get("type"),
            "layers": decoder.get("num_hidden_layers"),
            "hidden_size": decoder.get("hidden_size"),
            "vocab_size": model.get("vocab_size"),
            "context_length": model.get("context_length"),
            "providers": [name for each in decoder["session_options"].get("provider_options", []) for name in each],
            "bytes": sum(file.stat().st_size for file in path.glob("model.onnx*")),
            **_beside(path),
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path / _ONNX_CONFIG}: not the config of an ONNX Runtime GenAI decoder: {error!r}"
        ) from error


def _gguf(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        if file.read(4) != _GGUF_MAGIC:
            raise InputError(f"{path}: not a GGUF file, expected a folder or a file that begins with GGUF")
    try:
        from gguf import GGUFReader  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingError("the gguf package is not installed", "pip install 'lf-export[gguf]'") from error
    try:
        parts = parts_of(path)
        reader = GGUFReader(path)
        tensors = [*reader.tensors, *(tensor for part in parts[1:] for tensor in GGUFReader(part).tensors)]
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: a part of {path.name} is missing") from error
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise InputError(f"{path}: a truncated or malformed GGUF file: {error}") from error
    fields = {name: field for name, field in reader.fields.items() if not name.startswith("tokenizer.ggml.tokens")}

    def value(key: str) -> Any:
        field = fields.get(key)
        return None if field is None else field.contents()

    architecture = value("general.architecture")
    template = value("tokenizer.chat_template")
    return {
        "kind": "gguf",
        "path": str(path),
        "architecture": architecture,
        "name": value("general.name"),
        "layers": value(f"{architecture}.block_count"),
        "hidden_size": value(f"{architecture}.embedding_length"),
        "context_length": value(f"{architecture}.context_length"),
        "parameters": sum(int(prod(int(size) for size in tensor.shape)) for tensor in tensors),
        "dtypes": dict(Counter(tensor.tensor_type.name for tensor in tensors).most_common()),
        "tensors": len(tensors),
        "bytes": sum(part.stat().st_size for part in parts),
        "tokenizer": value("tokenizer.ggml.model"),
        "pre_tokenizer": value("tokenizer.ggml.pre"),
        "chat_template": None if template is None else ("with tools" if "tools" in template else "without tools"),
        "licences": [value("general.license")] if value("general.license") else [],
        "manifest": None,
    }


def _template(root: Path) -> str | None:
    file = root / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8", errors="replace")
    try:
        config = read_object(root / "tokenizer_config.json")
    except InputError:
        return None
    template = config.get("chat_template")
    return template if isinstance(template, str) or template is None else json.dumps(template)


def _beside(root: Path) -> dict[str, Any]:
    manifest = read_manifest(root)
    return {
        "licences": [file.name for file in licence_files(root)],
        "manifest": manifest
        and {"kind": manifest["kind"], "lf-export": (manifest.get("versions") or {}).get("lf-export", "unknown")},
    }


def facts_text(facts: Mapping[str, Any]) -> str:
    """The facts for a person, a line each; what is not known is left out."""
    lines = []
    for key, value in facts.items():
        if value is None or value in ([], {}):
            continue
        label = key.replace("_", " ")
        if key == "bytes":
            shown = bytes_text(int(value))
        elif key == "parameters":
            shown = f"{value:,}"
        elif isinstance(value, Mapping):
            shown = ", ".join(f"{name}: {each}" for name, each in value.items())
        elif isinstance(value, list):
            shown = ", ".join(map(str, value))
        else:
            shown = str(value)
        lines.append(f"{label:<16} {shown}")
    return "\n".join(lines)
