"""A LoRA adapter in a folder, as PEFT saves it: opened by its config and its header."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lf_export.checkpoint.header import FLOAT_DTYPES, TensorInfo, read_header
from lf_export.checkpoint.index import bounded, contained, read_object
from lf_export.checkpoint.lora_config import rank_of, refusals, scaling_of
from lf_export.errors import InputError
from lf_export.provenance import sha256_file

if TYPE_CHECKING:
    import torch

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
_PICKLE_NAME = "adapter_model.bin"
_PREFIX = "base_model.model."
_UNHANDLED = {
    ".lora_embedding_": "an adapter on an embedding",
    ".lora_magnitude_vector": "DoRA",
    ".modules_to_save.": "a module trained as a whole (modules_to_save)",
    ".trainable_tokens_": "trained rows of the embedding (trainable_token_indices)",
    ".lora_B.bias": "an adapter's bias (lora_bias)",
}
"""Parts of tensor names, with what they belong to."""


@dataclass(frozen=True, slots=True)
class LoraModule:
    """The adapter of one linear layer: `weight + scaling * B @ A`, A [rank, in], B [out, rank]."""

    name: str
    a: TensorInfo
    b: TensorInfo
    scaling: float

    @property
    def weight(self) -> str:
        """The name of the base's tensor that it changes."""
        return f"{self.name}.weight"

    @property
    def shape(self) -> tuple[int, int]:
        """The shape [out, in] of the weight that it fits."""
        return self.b.shape[0], self.a.shape[1]

    def factors(self, dtype: "torch.dtype") -> "tuple[torch.Tensor, torch.Tensor]":
        """A and B in memory, in `dtype`.

        Raises:
            InputError: a value is NaN or infinite, or the file cannot be read.
        """
        from lf_export.checkpoint.reader import check_finite, read  # noqa: PLC0415 (torch, when weights are wanted)

        a, b = read(self.a, dtype), read(self.b, dtype)
        check_finite(a, self.a.name, self.a.file)
        check_finite(b, self.b.name, self.b.file)
        return a, b


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter: its config as PEFT wrote it, and its modules by the name of the layer in the base.

    `copies` are weights of the base, by their names there, that PEFT saved along: it does so for the embedding and
    the output layer when one of them is a target or when it was asked to. `fit.check_fits` compares them.
    """

    root: Path
    config: dict[str, Any]
    modules: Mapping[str, LoraModule]
    copies: Mapping[str, TensorInfo] = field(default_factory=dict)

    def digest(self) -> str:
        """The sha256 over the digests of its config and its weights."""
        files = (self.root / CONFIG_NAME, self.root / WEIGHTS_NAME)
        return hashlib.sha256("".join(sha256_file(file) for file in files).encode()).hexdigest()


def open_adapter(path: Path | str) -> Adapter:
    """Open a PEFT adapter folder by its config and its header.

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
    if not (root / WEIGHTS_NAME).exists() and (root / _PICKLE_NAME).exists():
        raise InputError(
            f"{root}: the weights are a pickle ({_PICKLE_NAME}), {WEIGHTS_NAME} was expected",
            "a pickle can run code when it is loaded, so none is: save the adapter again with a current PEFT",
        )
    header = read_header(contained(root, WEIGHTS_NAME, "an adapter's weights are safetensors"))
    return Adapter(root, config, *_modules(header.file, header.tensors, config))


def _modules(
    file: Path, tensors: Sequence[TensorInfo], config: Mapping[str, Any]
) -> tuple[dict[str, LoraModule], dict[str, TensorInfo]]:
    halves: dict[str, dict[str, TensorInfo]] = {}
    copies: dict[str, TensorInfo] = {}
    problems = []
    for info in tensors:
        module, half = _split(info.name)
        if half == "copy":
            copies[f"{module}.weight"] = info
        elif not half:
            what = next((what for part, what in _UNHANDLED.items() if part in info.name), "no part of a LoRA")
            problems.append(f"{file}: {info.name}: {what}, and that is not handled")
        elif info.dtype not in FLOAT_DTYPES or len(info.shape) != 2:
            problems.append(f"{file}: {info.name}: a float matrix was expected, not {info.dtype} {list(info.shape)}")
        else:
            halves.setdefault(module, {})[half] = info
    modules = {}
    for module, pair in sorted(halves.items()):
        if len(pair) < 2:
            problems.append(f"{file}: {module}: has lora_{'A' if 'A' in pair else 'B'} alone, A and B were expected")
            continue
        a, b, rank = pair["A"], pair["B"], rank_of(config, module)
        if (a.shape[0], b.shape[1]) != (rank, rank):
            problems.append(
                f"{file}: {module}: A {list(a.shape)} and B {list(b.shape)}, but {CONFIG_NAME} gives rank {rank}"
            )
            continue
        modules[module] = LoraModule(module, a, b, scaling_of(config, module))
    if not modules and not problems:
        problems.append(f"{file}: no adapter tensors")
    if problems:
        raise InputError.of(bounded(problems))
    return modules, copies


def _split(name: str) -> tuple[str, str]:
    """The module that a tensor belongs to, and what it is there: "A", "B", "copy" of the base, or "" (not handled)."""
    inner = name.removeprefix(_PREFIX)
    if inner == name:
        return name, ""
    for half in "AB":
        if inner.endswith(suffix := f".lora_{half}.weight"):
            return inner.removesuffix(suffix), half
    module = inner.removesuffix(".weight").removesuffix(".base_layer")
    if module.rpartition(".")[2] in {"embed_tokens", "lm_head"} and inner.endswith(".weight"):
        return module, "copy"
    return name, ""
