"""Which architectures a GGUF can be written for: tensor names, order, and the metadata that llama.cpp reads."""

import importlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from lf_export.checkpoint.index import Checkpoint, TensorInfo
from lf_export.errors import InputError, MissingError
from lf_export.formats import gguf_experts, gguf_gemma, gguf_phi
from lf_export.formats.gguf_types import ModelShape

_LAYER = re.compile(r"^model\.layers\.(\d+)\.")
# Buffers that old checkpoints carry and no runtime reads.
_IGNORED = re.compile(r"rotary_emb\.inv_freq$|\.attention\.(masked_)?bias$")


@dataclass(frozen=True)
class Architecture:
    """How a family of decoders looks in a GGUF.

    Attributes:
        name: llama.cpp's name.
        permuted: whether q and k rows are reordered from halves to interleaved pairs (llama.cpp rotates neighbours
            for the llama architecture, halves for the others).
        qk_norm: whether q and k have norms of their own.
        post_norms: whether what attention and feed-forward give is normalized too.
        norm_offset: what is added to the weights of norms.
        fused: whether q, k and v are one matrix, and gate and up another.
        experts: whether the feed-forward of each layer is a mixture of experts.
    """

    name: str
    permuted: bool = False
    qk_norm: bool = False
    post_norms: bool = False
    norm_offset: float = 0.0
    fused: bool = False
    experts: bool = False


_GEMMA, _PHI = "gemma3", "phi3"

# Hugging Face class → architecture.
ARCHITECTURES = {
    "LlamaForCausalLM": Architecture("llama", permuted=True),
    "MistralForCausalLM": Architecture("llama", permuted=True),
    "Qwen2ForCausalLM": Architecture("qwen2"),
    "Qwen3ForCausalLM": Architecture("qwen3", qk_norm=True),
    "Gemma3ForCausalLM": Architecture(_GEMMA, qk_norm=True, post_norms=True, norm_offset=gguf_gemma.NORM_OFFSET),
    "Phi3ForCausalLM": Architecture(_PHI, fused=True),
    "MixtralForCausalLM": Architecture("llama", permuted=True, experts=True),
    "Qwen3MoeForCausalLM": Architecture("qwen3moe", qk_norm=True, experts=True),
}


@dataclass(frozen=True)
class GgufTensor:
    """One tensor of the file and where it comes from.

    Attributes:
        name: in the GGUF.
        shape: as in the checkpoint, [rows, width] or [n]; [experts, rows, width] for the matrices of experts.
        layer: the decoder layer, None for what belongs to none.
        source: the checkpoint's tensor, None when `values` holds it, or where there are `experts`.
        unit: rows that belong together under `permuted`: a head; 0 where rows stay in place.
        offset: what is added to each value.
        values: what is computed instead of read.
        experts: the checkpoint's matrices that follow each other in the tensor, one of each expert.
    """

    name: str
    shape: tuple[int, ...]
    layer: int | None = None
    source: TensorInfo | None = None
    unit: int = 0
    offset: float = 0.0
    values: npt.NDArray[np.float32] | None = None
    experts: tuple[TensorInfo, ...] = ()

    @property
    def sources(self) -> tuple[TensorInfo, ...]:
        """Every tensor of the checkpoint that it is made of, in order."""
        return self.experts if self.source is None else (self.source,)


def gguf_library() -> ModuleType:
    """The `gguf` package.

    Raises:
        MissingError: it is not installed.
    """
    try:
        return importlib.import_module("gguf")
    except ImportError as error:
        message = "the package gguf is not installed, it writes GGUF files"
        raise MissingError(message, "pip install 'lf-export[gguf]'") from error


def architecture_of(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a model's `config.json`.

    Raises:
        InputError: it is not one that a GGUF can be written for.
    """
    names = config.get("architectures") or []
    for name in names:
        if name in ARCHITECTURES:
            architecture = ARCHITECTURES[name]
            find = {_GEMMA: gguf_gemma.problems, _PHI: gguf_phi.problems}.get(architecture.name, _problems)
            problems = find(config, head_dim(config))
            problems += gguf_experts.problems(config) if architecture.experts else []
            if problems:
                raise InputError.of(problems)
            return architecture
    shown = ", ".join(names) or config.get("model_type", "none")
    message = f"config.json: a GGUF cannot be written for the architecture {shown}"
    raise InputError(message, f"known are {', '.join(ARCHITECTURES)}")


def _problems(config: Mapping[str, Any], _: int) -> list[str]:
    """What llama.cpp computes otherwise for these architectures."""
    problems = []
    if config.get("hidden_act", "silu") != "silu":
        problems.append(f"config.json: hidden_act is {config['hidden_act']!r}, llama.cpp computes silu")
    partial = config.get("partial_rotary_factor") or (config.get("rope_parameters") or {}).get("partial_rotary_factor")
    if partial not in {None, 1.0}:
        problems.append(f"config.json: partial_rotary_factor is {partial}, llama.cpp rotates whole heads")
    return problems


def model_shape(checkpoint: Checkpoint) -> ModelShape:
    """What the type recipe asks of a model."""
    config = checkpoint.config
    heads = int(config["num_attention_heads"])
    architecture = architecture_of(config)
    return ModelShape(
        architecture=architecture.name,
        layers=int(config["num_hidden_layers"]),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        tied=checkpoint.tied,
        experts=gguf_experts.count(config) if architecture.experts else 0,
    )


def head_dim(config: Mapping[str, Any]) -> int:
    """The width of one attention head."""
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def plan_tensors(checkpoint: Checkpoint) -> list[GgufTensor]:
    """Every tensor of the file in order: embeddings, layer by layer, what follows the layers.

    Raises:
        InputError: a tensor that the architecture needs is missing, or one is there that it does not have.
    """
    config = checkpoint.config
    architecture, shape = architecture_of(config), model_shape(checkpoint)
    gguf = gguf_library()
    kind = {value: key for key, value in gguf.MODEL_ARCH_NAMES.items()}[architecture.name]
    names = gguf.get_tensor_name_map(kind, shape.layers)
    stacks, problems = gguf_experts.stacks(checkpoint) if architecture.experts else ([], [])
    plan = [
        GgufTensor(
            name=names.get_name(stack.name, try_suffixes=(".weight",)),
            shape=(len(stack.members), *stack.members[0].shape),
            layer=stack.layer,
            experts=stack.members,
        )
        for stack in stacks
    ]
    stacked = {info.name for tensor in plan for info in tensor.experts}
    for info in checkpoint.tensors.values():
        if _IGNORED.search(info.name) or info.name in stacked:
            continue
        name = names.get_name(info.name, try_suffixes=(".weight", ".bias"))
        layer = _LAYER.match(info.name)
        if name is None or (layer and int(layer.group(1)) >= shape.layers):
            problems.append(f"{info.file}: the tensor {info.name} has no place in the architecture {architecture.name}")
            continue
        rotated = re.search(r"self_attn\.(q|k)_proj\.(weight|bias)$", info.name)
        plan.append(
            GgufTensor(
                name=name,
                shape=tuple(info.shape),
                layer=int(layer.group(1)) if layer else None,
                source=info,
                unit=head_dim(config) if rotated and architecture.permuted else 0,
                offset=architecture.norm_offset if name.endswith("norm.weight") else 0.0,
            )
        )
    factors = rope_factors(config)
    if factors is not None:
        plan.append(GgufTensor("rope_freqs.weight", factors.shape, values=factors))
    if architecture.name == _PHI:
        plan += [GgufTensor(name, values.shape, values=values) for name, values in gguf_phi.factors(config).items()]
    problems += [f"{checkpoint.root}: the tensor {name} is missing" for name in _missing(plan, architecture, shape)]
    if problems:
        raise InputError.of(problems)
    order = {"token_embd.weight": -1}
    plan.sort(key=lambda tensor: order.get(tensor.name, shape.layers if tensor.layer is None else tensor.layer))
    return plan


def _missing(plan: list[GgufTensor], architecture: Architecture, shape: ModelShape) -> list[str]:
    parts = ["attn_norm", "attn_output", "ffn_norm"]
    parts += ["attn_qkv"] if architecture.fused else ["attn_q", "attn_k", "attn_v"]
    # matrices of experts that are missing are named as the checkpoint should have them
    parts += ["ffn_gate_inp"] if architecture.experts else ["ffn_up", "ffn_down"]
    parts += [] if architecture.experts or architecture.fused else ["ffn_gate"]
    parts += ["attn_q_norm", "attn_k_norm"] if architecture.qk_norm else []
    parts += ["post_attention_norm", "post_ffw_norm"] if architecture.post_norms else []
    wanted = [f"blk.{layer}.{part}.weight" for layer in range(shape.layers) for part in parts]
    wanted += ["token_embd.weight", "output_norm.weight"] + ([] if shape.tied else ["output.weight"])
    return sorted(set(wanted) - {tensor.name for tensor in plan})


def rope_parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """The rotary embedding's parameters, from `rope_parameters` (Transformers 5) or `rope_theta` and `rope_scaling`."""
    if config.get("model_type") == "gemma3_text":
        return gguf_gemma.rope_parameters(config, sliding=False)
    found = dict(config.get("rope_parameters") or {})
    if not found:
        found = dict(config.get("rope_scaling") or {})
    found.setdefault("rope_theta", config.get("rope_theta", 10000.0))
    found["rope_type"] = found.get("rope_type") or found.get("type") or "default"
    return found


def rope_factors(config: Mapping[str, Any]) -> npt.NDArray[np.float32] | None:
    """What divides each rotary frequency under Llama 3's scaling, [head_dim / 2]; None for the other kinds.

    Source: Transformers' `_compute_llama3_parameters`; llama.cpp reads the factors from `rope_freqs.weight`.
    """
    rope = rope_parameters(config)
    if rope["rope_type"] != "llama3":
        return None
    width = head_dim(config)
    factor, low, high = float(rope["factor"]), float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    original = float(rope["original_max_position_embeddings"])
    factors = []
    for index in range(0, width, 2):
        wavelength = 2 * math.pi * float(rope["rope_theta"]) ** (index / width)
        if wavelength < original / high:
            factors.append(1.0)
        elif wavelength > original / low:
            factors.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(factors, np.float32)


def window_notes(config: Mapping[str, Any]) -> list[str]:
    """Where llama.cpp computes otherwise in long contexts: it has no sliding window for most architectures."""
    if config.get("model_type") == "gemma3_text":
        return []
    found = gguf_phi.notes(config) if config.get("model_type") == _PHI else []
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    if window is None or window >= config["max_position_embeddings"]:
        return found
    return [*found, f"beyond {window} tokens llama.cpp attends to the whole text, the model to a sliding window"]


def add_metadata(writer: Any, checkpoint: Checkpoint) -> None:
    """Write the hyperparameters that llama.cpp reads for the architecture to `writer`, a GGUFWriter.

    Raises:
        InputError: a kind of rotary embedding that llama.cpp does not have for it.
    """
    config = checkpoint.config
    shape, width = model_shape(checkpoint), head_dim(config)
    writer.add_context_length(int(config["max_position_embeddings"]))
    writer.add_embedding_length(int(config["hidden_size"]))
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_layer_norm_rms_eps(float(config.get("rms_norm_eps", 1e-6)))
    writer.add_vocab_size(int(config["vocab_size"]))
    if shape.architecture == _PHI:
        writer.add_rope_dimension_count(gguf_phi.rotated(config, width))
        gguf_phi.add_metadata(writer, config)
        return
    if shape.experts:
        gguf_experts.add_metadata(writer, config)
    writer.add_rope_dimension_count(width)
    _add_rope(writer, rope_parameters(config))
    if shape.architecture == _GEMMA:
        gguf_gemma.add_metadata(writer, config)


def _add_rope(writer: Any, rope: Mapping[str, Any]) -> None:
    scaling = gguf_library().RopeScalingType
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    kind = rope["rope_type"]
    if kind in {"default", "llama3"}:  # llama3's factors are a tensor
        return
    if kind == "linear":
        writer.add_rope_scaling_type(scaling.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    elif kind == "yarn":
        writer.add_rope_scaling_type(scaling.YARN)
        writer.add_rope_scaling_factor(float(rope["factor"]))
        writer.add_rope_scaling_orig_ctx_len(int(rope["original_max_position_embeddings"]))
    else:
        message = f"config.json: the rotary embedding {kind!r} cannot be written to a GGUF"
        raise InputError(message, "known are default, linear, yarn, llama3")
