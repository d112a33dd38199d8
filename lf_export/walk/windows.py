"""Transformers' config of a checkpoint, and how far back each layer looks by it; light to import."""

from typing import Any

from lf_export.checkpoint.index import Checkpoint
from lf_export.errors import InputError


def config_of(checkpoint: Checkpoint) -> Any:
    """The config as transformers' own object, set to `sdpa` attention.

    Raises:
        InputError: the model is quantized already.
    """
    # with transformers' models come torch's compiler and 100 MB, and most formats need neither
    from transformers import AutoConfig  # noqa: PLC0415

    fields = {name: value for name, value in checkpoint.config.items() if name != "model_type"}
    if "quantization_config" in fields:
        raise InputError(
            f"{checkpoint.root}: the model is quantized already", "quantize the merged model that it was made from"
        )
    config = AutoConfig.for_model(checkpoint.config["model_type"], **fields)
    config._attn_implementation = "sdpa"  # noqa: SLF001 - what from_pretrained(attn_implementation=) sets
    return config


def attention_windows(checkpoint: Checkpoint) -> list[int | None]:
    """How many tokens back each layer looks, itself included; None where it looks at all."""
    config = config_of(checkpoint)
    return [attention_window(config, index) for index in range(config.num_hidden_layers)]


def attention_window(config: Any, index: int) -> int | None:
    """The window of one layer by transformers' config; None where it looks at all tokens."""
    types = getattr(config, "layer_types", None)
    window: int | None = getattr(config, "sliding_window", None)
    return window if not types or types[index] == "sliding_attention" else None
