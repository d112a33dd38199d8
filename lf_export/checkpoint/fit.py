"""Whether an adapter belongs to a base: every doubt is an error before a byte is written."""

from collections.abc import Sequence

from lf_export.checkpoint.adapter import Adapter, LoraModule
from lf_export.checkpoint.header import FLOAT_DTYPES, TensorInfo
from lf_export.checkpoint.index import HEAD, Checkpoint, bounded
from lf_export.checkpoint.lora_config import targets, trained_whole
from lf_export.errors import InputError

_TRANSPOSED = frozenset({"gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp"})
"""Models of Conv1D layers: PEFT sets fan_in_fan_out for these by itself, whatever the config says."""


def transposed(base: Checkpoint, module: str) -> bool:
    """Whether a linear layer's weight is stored [in, out]: PEFT goes by the layer's type, not by `fan_in_fan_out`."""
    return base.config.get("model_type") in _TRANSPOSED and module != HEAD


def check_fits(adapter: Adapter, base: Checkpoint) -> None:
    """Raise unless the adapter was made for this base: its layers are there, of its shapes, and none is missing.

    Raises:
        InputError: lists every mistake, up to a screenful and a count of the rest.
    """
    problems = []
    if "quantization_config" in base.config:
        problems.append(
            f"{base.root}: the base is quantized, and adding to quantized weights is not exact: "
            "--dequantize-base adds to what they stand for"
        )
    for module in adapter.modules.values():
        problems += _module_problems(module, adapter, base)
    for name, info in adapter.whole.items():
        problems += _whole_problems(name, info, adapter, base)
    for layer, rows in adapter.tokens.items():
        problems += _token_problems(layer, rows, adapter, base)
    for name, info in base.tensors.items():
        module_name = name.removesuffix(".weight")
        wanted = name.endswith(".weight") and len(info.shape) == 2 and targets(adapter.config, module_name)
        if wanted and module_name not in adapter.modules and name not in adapter.whole:
            problems.append(f"{adapter.root}: has nothing for {module_name}, which its target_modules name")
        if not name.endswith(".bias") and trained_whole(adapter.config, name) and name not in adapter.whole:
            problems.append(f"{adapter.root}: has no {name}, which its modules_to_save name")
    if problems:
        said = adapter.config.get("base_model_name_or_path")
        raise InputError.of(
            [f"the adapter does not fit the base {base.root}:", *bounded(problems)],
            f"the adapter says that its base is {said!r}" if said else None,
        )


def check_combines(adapters: Sequence[Adapter], combine: str) -> None:
    """Raise unless adapters can be combined before they are merged: plain LoRA, and one rank for a linear one.

    PEFT's `add_weighted_adapter` takes more, and gives adapters that lack what was trained beside A and B.

    Raises:
        InputError: lists every mistake.
    """
    problems = []
    ranks: dict[str, set[int]] = {}
    for adapter in adapters:
        extra = {
            "DoRA": any(module.magnitude for module in adapter.modules.values()),
            "lora_bias": any(module.bias for module in adapter.modules.values()),
            "trained rows (trainable_token_indices)": bool(adapter.tokens),
            "modules trained whole": any(trained_whole(adapter.config, name) for name in adapter.whole),
        }
        problems += [f"{adapter.root}: has {what}, which cannot be combined" for what, there in extra.items() if there]
        for name, module in adapter.modules.items():
            ranks.setdefault(name, set()).add(module.a.shape[0])
    if combine == "linear":
        problems += [
            f"{name}: ranks {sorted(found)}, one was expected" for name, found in ranks.items() if len(found) > 1
        ]
    if problems:
        raise InputError.of(bounded(problems), "merge them in order, with weights; or, for ranks, combine with cat")


def _module_problems(module: LoraModule, adapter: Adapter, base: Checkpoint) -> list[str]:
    info = _there(module.weight, adapter, base)
    if info is None:
        return [f"{base.root}: no {module.weight}, which the adapter changes"]
    wanted = module.shape[::-1] if transposed(base, module.name) and not module.embedding else module.shape
    if info.shape != wanted:
        return [f"{base.root}: {module.weight} is {list(info.shape)}, the adapter is for {list(wanted)}"]
    if info.dtype not in FLOAT_DTYPES:
        return [f"{base.root}: {module.weight} is {info.dtype}, a float weight was expected"]
    if targets(adapter.config, module.name) is False and not (adapter.ties and module.name == HEAD):
        return [f"{adapter.root}: has tensors for {module.name}, which its target_modules do not name"]
    if module.bias is not None:
        bias = base.tensors.get(f"{module.name}.bias")
        if bias is None:
            return [f"{base.root}: no {module.name}.bias, to which the adapter adds (lora_bias)"]
        if bias.shape != module.bias.shape or bias.dtype not in FLOAT_DTYPES:
            return [f"{base.root}: {bias.name} is {list(bias.shape)}, the adapter is for {list(module.bias.shape)}"]
    return []


def _whole_problems(name: str, info: TensorInfo, adapter: Adapter, base: Checkpoint) -> list[str]:
    there = base.tensors.get(base.embedding or "" if name == f"{HEAD}.weight" and base.tied else name)
    if there is None:
        return [f"{info.file}: {info.name}: not a LoRA A or B, and no weight of the base either"]
    if there.dtype not in FLOAT_DTYPES:
        return [f"{base.root}: {name} is {there.dtype}, a float weight was expected"]
    resized = name in {base.embedding, f"{HEAD}.weight", f"{HEAD}.bias"} and info.shape[1:] == there.shape[1:]
    if info.shape != there.shape and not resized:
        return [f"{base.root}: {name} is {list(there.shape)}, in {adapter.root} it is {list(info.shape)}"]
    return []


def _token_problems(module: str, rows: TensorInfo, adapter: Adapter, base: Checkpoint) -> list[str]:
    info = _there(f"{module}.weight", adapter, base)
    if info is None or info.dtype not in FLOAT_DTYPES or len(info.shape) != 2:
        return [f"{base.root}: no matrix {module}.weight, rows of which were trained"]
    if info.shape[1] != rows.shape[1]:
        return [f"{base.root}: {module}.weight has {info.shape[1]} columns, the trained rows have {rows.shape[1]}"]
    return []


def _there(name: str, adapter: Adapter, base: Checkpoint) -> TensorInfo | None:
    """The weight that a change meets: the adapter's own, where it was saved whole, else the base's."""
    if name == f"{HEAD}.weight" and base.tied and name not in adapter.whole and base.embedding:
        name = base.embedding
    return adapter.whole.get(name) or base.tensors.get(name)
