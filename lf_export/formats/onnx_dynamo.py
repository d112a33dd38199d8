"""torch's dynamo exporter (opset 23), in a child process: a graph of standard operators alone."""

import json
from pathlib import Path
from typing import Any

from lf_export.checkpoint.index import Checkpoint
from lf_export.errors import InputError
from lf_export.formats.onnx_child import CONFIG_NAME, GRAPH_NAME, run_exporter
from lf_export.walk.windows import attention_windows

# What genai_config.json says where the model says nothing else: greedy, and nothing that changes logits.
_SEARCH = {
    "do_sample": False,
    "early_stopping": True,
    "max_length": 0,
    "min_length": 0,
    "no_repeat_ngram_size": 0,
    "num_beams": 1,
    "num_return_sequences": 1,
    "past_present_share_buffer": False,
    "repetition_penalty": 1.0,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
}


def export(checkpoint: Checkpoint, out: Path, scratch: Path, precision: str, threads: int) -> None:
    """Export the model to a graph and its external data in the folder `out`, with ONNX Runtime GenAI's config.

    Args:
        checkpoint: the model, unquantized.
        out: an existing folder.
        scratch: a folder for what the child prints.
        precision: `fp32` or `fp16`.
        threads: of the child.

    Raises:
        InputError: no end token is named.
        StepError: the exporter failed, or left no graph.
    """
    config = genai_config(checkpoint)
    asked = {
        "model": str(checkpoint.root),
        "graph": str(out / GRAPH_NAME),
        "precision": precision,
        "windows": attention_windows(checkpoint),
    }
    command = ["lf_export.formats.onnx_dynamo_child", json.dumps(asked)]
    memory = "it holds the whole model in memory, and half a gigabyte of its own"
    made = [out / GRAPH_NAME, out / f"{GRAPH_NAME}.data"]
    run_exporter(command, "torch's dynamo exporter", scratch / "dynamo.log", made, threads, memory)
    (out / CONFIG_NAME).write_text(json.dumps(config, indent=4) + "\n", encoding="utf-8")


def genai_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """What ONNX Runtime GenAI has to know of the graph; keys and values are appended, not written in place.

    Raises:
        InputError: no end token is named.
    """
    config = checkpoint.config
    heads = int(config["num_attention_heads"])
    context = int(config["max_position_embeddings"])
    end = _end_tokens(checkpoint)
    return {
        "model": {
            "bos_token_id": config.get("bos_token_id"),
            "context_length": context,
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "filename": GRAPH_NAME,
                "head_size": int(config.get("head_dim") or int(config["hidden_size"]) // heads),
                "hidden_size": int(config["hidden_size"]),
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "position_ids": "position_ids",
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
                "num_attention_heads": heads,
                "num_hidden_layers": int(config["num_hidden_layers"]),
                "num_key_value_heads": int(config.get("num_key_value_heads") or heads),
            },
            "eos_token_id": end if len(end) > 1 else end[0],
            "pad_token_id": config["pad_token_id"] if config.get("pad_token_id") is not None else end[0],
            "type": str(config["model_type"]),
            "vocab_size": int(config["vocab_size"]),
        },
        "search": _SEARCH | {"max_length": context},
    }


def _end_tokens(checkpoint: Checkpoint) -> list[int]:
    path = checkpoint.root / "generation_config.json"
    generation = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found: dict[int, None] = {}
    for value in (generation.get("eos_token_id"), checkpoint.config.get("eos_token_id")):
        found |= dict.fromkeys(value if isinstance(value, list) else [] if value is None else [int(value)])
    if not found:
        raise InputError(f"{checkpoint.root}: neither generation_config.json nor config.json names an end token")
    return list(found)
