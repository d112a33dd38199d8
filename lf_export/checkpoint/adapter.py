"""A LoRA adapter in a folder, as PEFT saves it: opened by its config and its headers."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lf_export.checkpoint.header import FLOAT_DTYPES, TensorInfo, read_header
from lf_export.checkpoint.index import EMBEDDINGS, HEAD, bounded, contained, open_shards, read_object
from lf_export.checkpoint.lora_config import rank_of, refusals, scaling_of, token_indices, trained_whole
from lf_export.errors import InputError
from lf_export.provenance import sha256_file

if TYPE_CHECKING:
    import torch

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
INDEX_NAME = "adapter_model.safetensors.index.json"
_PICKLE_NAME = "adapter_model.bin"
_PREFIX = "base_model.model."
_ENDINGS = {
    ".lora_A.weight": "A",
    ".lora_B.weight": "B",
    ".lora_embedding_A": "embedding A",
    ".lora_embedding_B": "embedding B",
    ".lora_magnitude_vector": "magnitude",
    ".lora_magnitude_vector.weight": "magnitude",
    ".lora_B.bias": "bias",
    ".token_adapter.trainable_tokens_delta": "tokens",
}
"""What a tensor is to its module, by the end of its name."""

_WRAPPERS = (".token_adapter", ".base_layer", ".modules_to_save")
"""Parts that PEFT puts into the names of weights that it saves whole."""


@dataclass(frozen=True, slots=True)
class LoraModule:
    """The adapter of one layer: `weight + scaling * B @ A`, A [rank, in], B [out, rank].

    On an embedding A is [rank, tokens], B [dim, rank], and the product is transposed. `magnitude` [out] is DoRA's,
    `bias` [out] that of B (`lora_bias`).
    """

    name: str
    a: TensorInfo
    b: TensorInfo
    scaling: float
    embedding: bool = False
    magnitude: TensorInfo | None = None
    bias: TensorInfo | None = None

    @property
    def weight(self) -> str:
        """The name of the base's tensor that it changes."""
        return f"{self.name}.weight"

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the weight that it fits: [out, in] of a linear layer, [tokens, dim] of an embedding."""
        shape = self.b.shape[0], self.a.shape[1]
        return shape[::-1] if self.embedding else shape

    def factors(self, dtype: "torch.dtype") -> "tuple[torch.Tensor, torch.Tensor]":
        """A and B in memory, in `dtype`.

        Raises:
            InputError: a value is NaN or infinite, or the file cannot be read.
        """
        from lf_export.checkpoint.reader import read_finite  # noqa: PLC0415 (torch, when weights are wanted)

        return read_finite(self.a, dtype), read_finite(self.b, dtype)


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter: its config as PEFT wrote it, and its parts by the names of the layers in the base.

    `whole` are weights by their names in the base: of modules that were trained whole (`modules_to_save`, `bias`), and
    copies that PEFT saves along of the embedding and the output layer, when one of them is a target or was
    resized. `tokens` are rows [tokens, dim] of an embedding, by module (`trainable_token_indices`).
    """

    root: Path
    config: dict[str, Any]
    files: tuple[Path, ...]
    modules: Mapping[str, LoraModule]
    whole: Mapping[str, TensorInfo] = field(default_factory=dict)
    tokens: Mapping[str, TensorInfo] = field(default_factory=dict)

    @property
    def ties(self) -> bool:
        """Whether changes of the embedding were meant for a tied output layer too."""
        return bool(self.config.get("ensure_weight_tying"))

    def digest(self) -> str:
        """The sha256 over the digests of its config and its weights."""
        files = (self.root / CONFIG_NAME, *self.files)
        return hashlib.sha256("".join(sha256_file(file) for file in files).encode()).hexdigest()


def open_adapter(path: Path | str) -> Adapter:
    """Open a PEFT adapter folder by its config and its headers; its weights may lie in several shards with an index.

    Raises:
        InputError: it is not such a folder, or the adapter is of a kind that cannot be merged exactly; names each
            reason.
    """
    root = Path(path)
    if not root.is_dir():
        raise InputError(f"{root}: {'not a folder' if root.exists() else 'no such folder'}")
    config = read_object(contained(root, CONFIG_NAME, "an adapter folder has an adapter_config.json"))
    if problems := refusals(config):
        raise InputError.of([f"{root / CONFIG_NAME}: {problem}" for problem in problems])
    files, tensors = _weights(root)
    parts = _Parts(files[0], config)
    for info in tensors:
        parts.take(info)
    return Adapter(root, config, files, *parts.close())


def _weights(root: Path) -> tuple[tuple[Path, ...], Sequence[TensorInfo]]:
    if not (root / WEIGHTS_NAME).exists():
        if (root / INDEX_NAME).exists():
            shards = open_shards(root, INDEX_NAME)
            return shards.files, list(shards.tensors.values())
        if (root / _PICKLE_NAME).exists():
            raise InputError(
                f"{root}: the weights are a pickle ({_PICKLE_NAME}), {WEIGHTS_NAME} was expected",
                "a pickle can run code when it is loaded, so none is: save the adapter again with a current PEFT",
            )
    header = read_header(contained(root, WEIGHTS_NAME, "an adapter's weights are safetensors"))
    return (header.file,), header.tensors


class _Parts:
    """Sorts an adapter's tensors by module, and collects every mistake."""

    def __init__(self, file: Path, config: Mapping[str, Any]) -> None:
        self.file = file
        self.config = config
        self.parts: dict[str, dict[str, TensorInfo]] = {}
        self.whole: dict[str, TensorInfo] = {}
        self.tokens: dict[str, TensorInfo] = {}
        self.problems: list[str] = []

    def take(self, info: TensorInfo) -> None:
        module, part = _split(info.name)
        matrix = part not in {"magnitude", "bias", "weight"}
        if part == "original":
            return
        if not part or (part == "weight" and not self._whole(module)):
            self.problems.append(f"{info.file}: {info.name}: no part of a LoRA, and that is not handled")
        elif info.dtype not in FLOAT_DTYPES or (part != "weight" and len(info.shape) != 1 + matrix):
            wanted = "float weights" if part == "weight" else f"a float {'matrix' if matrix else 'vector'}"
            self.problems.append(
                f"{info.file}: {info.name}: {wanted} was expected, not {info.dtype} {list(info.shape)}"
            )
        elif part == "weight":
            self.whole[module] = info
        elif part == "tokens":
            self._take_tokens(module, info)
        else:
            self.parts.setdefault(module, {})[part] = info

    def _whole(self, name: str) -> bool:
        module, _, last = name.rpartition(".")
        copied = last == "weight" and module.rpartition(".")[2] in {*EMBEDDINGS, HEAD}
        return copied or trained_whole(self.config, name)

    def _take_tokens(self, module: str, info: TensorInfo) -> None:
        indices = token_indices(self.config, module)
        if indices is None or len(indices) != info.shape[0]:
            said = "no" if indices is None else f"{len(indices)}"
            self.problems.append(
                f"{info.file}: {info.name}: {info.shape[0]} rows, trainable_token_indices names {said} tokens for it"
            )
        self.tokens[module] = info

    def close(self) -> tuple[dict[str, LoraModule], dict[str, TensorInfo], dict[str, TensorInfo]]:
        """The modules, the weights saved whole, and the trained rows; raises where there was a mistake."""
        modules = {name: self._module(name, parts) for name, parts in sorted(self.parts.items())}
        if not (modules or self.whole or self.tokens or self.problems):
            self.problems.append(f"{self.file}: no adapter tensors")
        if self.problems:
            raise InputError.of(bounded(self.problems))
        return {name: module for name, module in modules.items() if module}, self.whole, self.tokens

    def _module(self, name: str, parts: Mapping[str, TensorInfo]) -> LoraModule | None:
        kind = "embedding " if any(part.startswith("embedding") for part in parts) else ""
        found = [half for half in "AB" if kind + half in parts]
        if len(found) < 2:
            said = f"lora_{found[0]} alone" if found else f"{', '.join(parts)} alone"
            self.problems.append(f"{self.file}: {name}: has {said}, A and B were expected")
            return None
        a, b, rank = parts[kind + "A"], parts[kind + "B"], rank_of(self.config, name)
        if (a.shape[0], b.shape[1]) != (rank, rank):
            self.problems.append(
                f"{self.file}: {name}: A {list(a.shape)} and B {list(b.shape)}, but {CONFIG_NAME} gives rank {rank}"
            )
            return None
        for part, flag in (("magnitude", "use_dora"), ("bias", "lora_bias")):
            info, wanted = parts.get(part), bool(self.config.get(flag)) and not (part == "bias" and kind)
            if (info is not None) != wanted:
                has = "no" if info is None else "a"
                self.problems.append(f"{self.file}: {name}: has {has} {part}, and {flag} is {str(wanted).lower()}")
            elif info is not None and info.shape != b.shape[:1]:
                self.problems.append(f"{info.file}: {info.name}: {list(info.shape)}, {list(b.shape[:1])} was expected")
        return LoraModule(
            name, a, b, scaling_of(self.config, name), bool(kind), parts.get("magnitude"), parts.get("bias")
        )


def _split(name: str) -> tuple[str, str]:
    """The module that a tensor belongs to and what it is there.

    A weight saved whole comes under its own name in the base as "weight"; "original" is one that PEFT saves beside
    the trained one and does not use; "" is none of all this.
    """
    inner = name.removeprefix(_PREFIX)
    if inner == name:
        return name, ""
    for ending, part in _ENDINGS.items():
        if inner.endswith(ending):
            return inner.removesuffix(ending), part
    if ".lora_" in inner:
        return name, ""
    if ".original_module." in inner:
        return inner, "original"
    for wrapper in _WRAPPERS:
        inner = inner.replace(f"{wrapper}.", ".")
    return inner, "weight"
