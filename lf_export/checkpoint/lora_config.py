"""What each field of a PEFT LoraConfig means to a merge: followed, without effect, or refused by name.

A field that is in none of the three tables comes from a newer PEFT: it is refused as soon as it is set, because
nobody here knows whether it changes the mathematics.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, Literal

Combine = Literal["in-order", "linear", "cat"]
"""How several adapters become one: each added after the other, or as PEFT's `add_weighted_adapter` names it."""

HANDLED = frozenset(
    {
        "peft_type",
        "r",
        "lora_alpha",
        "use_rslora",
        "rank_pattern",
        "alpha_pattern",
        "target_modules",
        "exclude_modules",
        "layers_to_transform",
        "layers_pattern",
        "init_lora_weights",
        "use_dora",
        "modules_to_save",
        "trainable_token_indices",
        "bias",
        "lora_bias",
        "fan_in_fan_out",  # PEFT goes by the layer's type, whatever the config says, and so does `fit.transposed`
        "ensure_weight_tying",
    }
)
"""Fields that the merge follows."""

INERT = frozenset(
    {
        "task_type",
        "auto_mapping",
        "peft_version",
        "base_model_name_or_path",
        "revision",
        "inference_mode",
        "lora_dropout",  # training only
        "megatron_core",  # a module's name, used only with megatron_config
        "qalora_group_size",  # used only with use_qalora
        "loftq_config",  # used only with init_lora_weights: loftq
        "eva_config",  # the same with eva, whose ranks and alphas are in the patterns
        "corda_config",  # the same with corda
        "lora_ga_config",  # the same with lora_ga
        "runtime_config",  # never saved
    }
)
"""Fields that change nothing in a merge of what is accepted."""

REFUSED: dict[str, str] = {
    "layer_replication": "the adapter belongs to a base with repeated layers",
    "target_parameters": "the adapter targets bare parameters, such as experts",
    "megatron_config": "the adapter belongs to Megatron's parallel layers",
    "use_qalora": "QALoRA pools the inputs of quantized layers",
    "alora_invocation_tokens": "activated LoRA applies to some tokens only and cannot be merged",
    "arrow_config": "Arrow routes between adapters and cannot be merged",
    "velora_config": "VeLoRA stores projections beside the adapter",
    "monteclora_config": "MonteCLoRA samples its weights",
    "use_bdlora": "BD-LoRA stores block-diagonal factors",
    "kasa_config": "KaSA truncates the base's weights and scales by a trained diagonal",
}
"""Fields that change the mathematics, with the reason that the user reads."""

_PLAIN_STARTS = {"gaussian", "eva", "orthogonal", "mica"}
"""Ways to start A and B that leave the base's weights as they are; true and false do too."""

_ABSENT: tuple[Any, ...] = (None, False, [], {}, "")


def refusals(config: Mapping[str, Any]) -> list[str]:
    """Why an adapter with this config cannot be merged exactly; empty if it can."""
    kind = config.get("peft_type")
    if kind != "LORA":
        return [f"peft_type {kind!r} is not handled, LORA is"]
    problems = []
    for field, value in config.items():
        if field in REFUSED and value not in _ABSENT:
            problems.append(f"{field} is set, and that is not handled: {REFUSED[field]}")
        elif field not in HANDLED | INERT | REFUSED.keys() and value not in _ABSENT:
            problems.append(f"{field} is set, a field that this version does not know")
    start = config.get("init_lora_weights", True)
    if not isinstance(start, bool) and not (isinstance(start, str) and start in _PLAIN_STARTS):
        problems.append(
            f"init_lora_weights {start!r} is not handled: it changes the base's weights before training "
            "(PEFT's save_pretrained converts such an adapter with path_initial_model_for_weight_conversion)"
        )
    return problems + _shape_problems(config)


def _shape_problems(config: Mapping[str, Any]) -> list[str]:
    problems = []
    if not _positive_int(config.get("r", 8)):
        problems.append(f"r is {config.get('r')!r}, a positive whole number was expected")
    if not _number(config.get("lora_alpha", 8)):
        problems.append(f"lora_alpha is {config.get('lora_alpha')!r}, a number was expected")
    for field, valid in (("rank_pattern", _positive_int), ("alpha_pattern", _number)):
        patterns = config.get(field) or {}
        if not isinstance(patterns, dict):
            problems.append(f"{field} is not an object from module names to numbers")
            continue
        problems += [f"{field}: {key!r} maps to {value!r}" for key, value in patterns.items() if not valid(value)]
        problems += [f"{field}: {key!r} is not a regular expression" for key in patterns if not _compiles(key)]
    for field in ("target_modules", "exclude_modules", "layers_pattern"):
        value = config.get(field)
        if value is not None and not isinstance(value, str) and not _list_of(value, str):
            problems.append(f"{field} is not a list of names")
            continue
        # a list is matched letter by letter, but for layers_pattern
        patterns = [value] if isinstance(value, str) else value if field == "layers_pattern" else []
        problems += [f"{field}: {text!r} is not a regular expression" for text in patterns or [] if not _compiles(text)]
    layers = config.get("layers_to_transform")
    if layers is not None and type(layers) is not int and not _list_of(layers, int):
        problems.append("layers_to_transform is not a list of layer numbers")
    return problems + _trained_problems(config)


def _trained_problems(config: Mapping[str, Any]) -> list[str]:
    problems = []
    if config.get("use_dora") and config.get("lora_bias"):
        problems.append("lora_bias and use_dora are both set, PEFT knows no such adapter")
    if config.get("bias", "none") not in ("none", "all", "lora_only", None, ""):
        problems.append(f"bias is {config['bias']!r}, one of none, all and lora_only was expected")
    if config.get("modules_to_save") is not None and not _list_of(config["modules_to_save"], str):
        problems.append("modules_to_save is not a list of names")
    tokens = config.get("trainable_token_indices")
    by_layer = list(tokens.values()) if isinstance(tokens, dict) else [] if tokens is None else [tokens]
    if not all(_distinct_ids(indices) for indices in by_layer):
        problems.append("trainable_token_indices is not a list of distinct token ids, or such lists by layer")
    return problems


def _distinct_ids(value: object) -> bool:
    return (
        isinstance(value, list)
        and all(type(one) is int and one >= 0 for one in value)
        and len(set(value)) == len(value)
    )


_MOST = 1 << 31
"""No rank and no alpha is larger; an integer of JSON may be too large for a float."""


def _positive_int(value: object) -> bool:
    return type(value) is int and 0 < value < _MOST


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and type(value) is not bool and abs(value) < _MOST  # false for NaN


def _list_of(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(type(item) is kind for item in value)


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        return False
    return True


def rank_of(config: Mapping[str, Any], module: str) -> int:
    """The rank that the config gives to a module (PEFT: the first key of rank_pattern that matches its end)."""
    return int(_by_pattern(config.get("rank_pattern"), module, config.get("r", 8)))


def scaling_of(config: Mapping[str, Any], module: str) -> float:
    """The factor of B @ A: alpha / r, or alpha / sqrt(r) for rsLoRA (https://arxiv.org/abs/2312.03732)."""
    rank = rank_of(config, module)
    alpha: float = _by_pattern(config.get("alpha_pattern"), module, config.get("lora_alpha", 8))
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def _by_pattern(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    for key, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return default


def targets(config: Mapping[str, Any], module: str) -> bool | None:
    """Whether the config puts an adapter on a module, by PEFT's rules; None where the config does not say.

    A list names modules or their last parts, a string is a regular expression over the whole name.
    `layers_to_transform` narrows a list where it names last parts, `exclude_modules` goes before everything.
    """
    excluded = config.get("exclude_modules")
    if excluded and _named(excluded, module):
        return False
    wanted = config.get("target_modules")
    if wanted is None or wanted == "all-linear":
        return None
    if not _named(wanted, module):
        return False
    layers = config.get("layers_to_transform")
    if isinstance(wanted, str) or module in wanted or layers is None or layers == []:
        return True
    number = _layer_number(config.get("layers_pattern"), module)
    return number is not None and (number == layers if isinstance(layers, int) else number in layers)


def _named(names: str | list[str], module: str) -> bool:
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in names)


def _layer_number(patterns: str | list[str] | None, module: str) -> int | None:
    if not patterns:
        match = re.match(r".*?\.[^.]*\.(?P<number>\d+)\.", module)
        return int(match["number"]) if match else None
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        match = re.match(rf"(?:^|.*?\.){pattern}\.(?P<number>\d+)\.", module)
        if match:
            return int(match["number"])
    return None


def trained_whole(config: Mapping[str, Any], name: str) -> bool:
    """Whether the tensor `name` belongs to a module that was trained as a whole, by PEFT's rule.

    A name in `modules_to_save` stands for every module whose name ends in it, letter by letter: "norm" stands for
    "input_layernorm" too. With `bias` the base's biases are trained as well.
    """
    if name.endswith(".bias") and config.get("bias", "none") not in {"none", None, ""}:
        return True
    saved = tuple(config.get("modules_to_save") or ())
    parts = name.split(".")
    return any(".".join(parts[:end]).endswith(saved) for end in range(1, len(parts)))


def token_indices(config: Mapping[str, Any], module: str) -> list[int] | None:
    """Which rows of the module were trained (`trainable_token_indices`); None where the config does not say."""
    tokens = config.get("trainable_token_indices")
    if isinstance(tokens, dict):
        return next((list(indices) for key, indices in tokens.items() if module.endswith(key)), None)
    return None if tokens is None else list(tokens)
