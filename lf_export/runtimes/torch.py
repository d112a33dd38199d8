"""The `torch` runtime: a Hugging Face folder in plain torch, GPTQ and AWQ folders dequantized by our own unpacking.

A dequantized artifact answers exactly as its integers say; its speed and memory say nothing about a deployment.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lf_export.checkpoint.index import Checkpoint, open_checkpoint
from lf_export.errors import InputError
from lf_export.quant import dequantize_awq, dequantize_stored
from lf_export.quant.pack import STORED, stored_bits
from lf_export.runtimes.causal import CausalSession, load_tokenizer
from lf_export.runtimes.experts import fuse_experts

name = "torch"


def accepts(path: Path) -> bool:
    """Whether `path` is a folder with a Hugging Face config."""
    return (path / "config.json").is_file()


def open_session(path: Path, threads: int) -> CausalSession:
    """Load the folder at `path`; its stored dtype is the dtype that computes, a quantized one computes in float32.

    Raises:
        InputError: the folder is not a model that can be loaded, or is quantized in a layout that is not known.
    """
    torch.set_num_threads(threads)
    began = time.perf_counter()
    checkpoint = open_checkpoint(path)  # headers only: refuses pickles, truncated files and links that lead outside
    quantization = checkpoint.config.get("quantization_config")
    model = _dequantized(checkpoint, quantization) if quantization else _plain(path)
    tokenizer = load_tokenizer(path)
    return CausalSession(
        model.eval(),
        tokenizer,
        name=name,
        representative=quantization is None,
        load_seconds=time.perf_counter() - began,
    )


def _plain(path: Path) -> Any:
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - heavy

    return AutoModelForCausalLM.from_pretrained(
        path,
        dtype="auto",
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        attn_implementation="sdpa",
    )


def _dequantized(checkpoint: Checkpoint, quantization: dict[str, Any]) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415 - heavy
    from transformers.initialization import no_init_weights  # noqa: PLC0415 - heavy

    dequantized = _dequantizer(checkpoint, quantization)
    state: dict[str, torch.Tensor] = {}
    for tensor_name in checkpoint.tensors:
        stem, _, kind = tensor_name.rpartition(".")
        if kind == "qweight":
            state[f"{stem}.weight"] = dequantized(stem)
        elif f"{stem}.qweight" not in checkpoint.tensors or kind == "bias":
            state[tensor_name] = checkpoint.read(tensor_name, dtype=torch.float32)
    fuse_experts(state, checkpoint.config)
    config = AutoConfig.from_pretrained(checkpoint.root, local_files_only=True, trust_remote_code=False)
    del config.quantization_config
    with no_init_weights():
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa")
    missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    tied = set(model.all_tied_weights_keys)
    if unexpected or set(missing) - tied:
        names = ", ".join(sorted([*unexpected, *(set(missing) - tied)])[:5])
        raise InputError(f"{checkpoint.root}: its tensors are not those of a {config.model_type} model: {names}")
    return model


_AWQ_PARTS = ("qweight", "qzeros", "scales")


def _parts(checkpoint: Checkpoint, stem: str, *parts: str) -> dict[str, torch.Tensor]:
    return {part: checkpoint.read(f"{stem}.{part}") for part in parts}


def _dequantize_gptq(checkpoint: Checkpoint, stem: str) -> torch.Tensor:
    parts = _parts(checkpoint, stem, *STORED)
    try:
        bits = stored_bits(parts["qweight"].shape[0], parts["g_idx"].shape[0])
    except ValueError as error:
        raise InputError(f"{checkpoint.root}: {stem}.qweight: {error}") from error
    return dequantize_stored(parts, bits)


def _dequantizer(checkpoint: Checkpoint, quantization: dict[str, Any]) -> Callable[[str], torch.Tensor]:
    """What gives the fp32 weight of a quantized linear by its name."""
    method = quantization.get("quant_method")
    if method == "gptq":
        return lambda stem: _dequantize_gptq(checkpoint, stem)
    if method == "awq" and quantization.get("bits") == 4 and str(quantization.get("version")).lower() == "gemm":
        return lambda stem: dequantize_awq(_parts(checkpoint, stem, *_AWQ_PARTS))
    raise InputError(
        f"{checkpoint.root}: quantized by {method!r}, the torch runtime dequantizes gptq and awq (4 bits, gemm) only"
    )
