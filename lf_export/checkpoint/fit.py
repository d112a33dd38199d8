"""Whether an adapter belongs to a base: every doubt is an error before a byte is written."""

import torch

from lf_export.checkpoint.adapter import Adapter, LoraModule
from lf_export.checkpoint.header import FLOAT_DTYPES, TensorInfo
from lf_export.checkpoint.index import Checkpoint, bounded
from lf_export.checkpoint.lora_config import targets
from lf_export.checkpoint.reader import TORCH_DTYPES, read
from lf_export.errors import InputError

_TRANSPOSED = frozenset({"gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp"})
"""Models of Conv1D layers: PEFT sets fan_in_fan_out for these by itself, whatever the config says."""

_COMPARED_ROWS = 1024


def check_fits(adapter: Adapter, base: Checkpoint) -> None:
    """Raise unless the adapter was made for this base: its layers are there, of its shapes, and none is missing.

    Raises:
        InputError: lists every mistake, up to a screenful and a count of the rest.
    """
    problems = []
    if base.config.get("model_type") in _TRANSPOSED:
        problems.append(f"{base.root}: the weights of {base.config['model_type']} are transposed: not handled")
    if "quantization_config" in base.config:
        problems.append(f"{base.root}: the base is quantized, and adding to quantized weights is not exact")
    for module in adapter.modules.values():
        problems += _module_problems(module, adapter, base)
    for name, copy in adapter.copies.items():
        problems += _copy_problems(name, copy, base)
    for name, info in base.tensors.items():
        module_name = name.removesuffix(".weight")
        wanted = name.endswith(".weight") and len(info.shape) == 2 and targets(adapter.config, module_name)
        if wanted and module_name not in adapter.modules:
            problems.append(f"{adapter.root}: has nothing for {module_name}, which its target_modules name")
    if problems:
        said = adapter.config.get("base_model_name_or_path")
        raise InputError.of(
            [f"the adapter does not fit the base {base.root}:", *bounded(problems)],
            f"the adapter says that its base is {said!r}" if said else None,
        )


def _module_problems(module: LoraModule, adapter: Adapter, base: Checkpoint) -> list[str]:
    info = base.tensors.get(module.weight)
    if info is None:
        if module.name == "lm_head" and base.tied:
            return [f"{base.root}: lm_head shares its weight with the embedding, an adapter on it is not handled"]
        return [f"{base.root}: no {module.weight}, which the adapter changes"]
    if info.shape != module.shape:
        return [f"{base.root}: {module.weight} is {list(info.shape)}, the adapter is for {list(module.shape)}"]
    if info.dtype not in FLOAT_DTYPES:
        return [f"{base.root}: {module.weight} is {info.dtype}, a float weight was expected"]
    if targets(adapter.config, module.name) is False:
        return [f"{adapter.root}: has tensors for {module.name}, which its target_modules do not name"]
    return []


def _copy_problems(name: str, copy: TensorInfo, base: Checkpoint) -> list[str]:
    info = base.tensors.get("model.embed_tokens.weight" if name == "lm_head.weight" and base.tied else name)
    if info is None:
        return [f"{copy.file}: {copy.name}: not a LoRA A or B, and no weight of the base either"]
    if copy.shape != info.shape:
        shapes = f"{list(copy.shape)}, in the base {list(info.shape)}"
        return [f"{copy.file}: {copy.name} is {shapes}: a resized vocabulary is not handled"]
    dtype = TORCH_DTYPES[info.dtype]
    for first in range(0, info.shape[0] if info.shape else 0, _COMPARED_ROWS):
        rows = slice(first, first + _COMPARED_ROWS)
        if not torch.equal(read(copy, dtype, rows), read(info, None, rows)):
            return [f"{copy.file}: {copy.name} differs from the base's: weights trained whole are not handled"]
    return []
