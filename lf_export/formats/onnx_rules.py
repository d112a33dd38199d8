"""What onnxruntime-genai's builder does right: the combinations that were measured, and why the others are refused.

The builder exits with 0 whatever it wrote, so only what was seen to give a model's own logits is asked of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata, util
from typing import Any

from lf_export.errors import InputError, MissingError
from lf_export.quant.ort import onnxruntime

BUILDER_VERSION = "0.18.0"
_PACKAGES = ("onnx", "onnx_ir", "onnxscript")
_FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "phi3")
_ROPES = ("default", "llama3")


@dataclass(frozen=True)
class Route:
    """How the builder is asked for a graph: its own precision and provider."""

    precision: str
    provider: str


# The builder's fp16 graph for the CPU lacks what the CPU runs; its graph for CUDA runs there, with fp32 arithmetic
# where there is no fp16 kernel.
_ROUTES = {
    ("fp32", "cpu"): Route("fp32", "cpu"),
    ("fp16", "cpu"): Route("fp16", "cuda"),
    ("int8", "cpu"): Route("int8", "cpu"),
    ("int4", "cpu"): Route("int4", "cpu"),
    ("fp16", "cuda"): Route("fp16", "cuda"),
    ("int8", "cuda"): Route("int8", "cuda"),
    ("int4", "cuda"): Route("int4", "cuda"),
}
_REFUSED = {("fp32", "cuda"): "the builder's graph does not load, take fp16"}


def route(precision: str, provider: str) -> Route:
    """How to ask for a graph of `precision` for `provider`.

    Raises:
        InputError: the builder is known to get it wrong.
    """
    found = _ROUTES.get((precision, provider))
    if found is None:
        reason = _REFUSED.get((precision, provider), "it was never measured")
        allowed = ", ".join("-".join(pair) for pair in _ROUTES)
        raise InputError(f"onnx: {precision} for {provider} is not offered: {reason}", f"expected one of {allowed}")
    return found


def check_architecture(config: Mapping[str, Any]) -> None:
    """Refuse, by name, what the builder was not seen to export right.

    Raises:
        InputError: all reasons at once.
    """
    problems = []
    family = config.get("model_type")
    if family not in _FAMILIES:
        problems.append(f"onnx: model_type {family!r} is not offered, expected one of {', '.join(_FAMILIES)}")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in _ROPES:
        problems.append(f"onnx: rope_type {kind!r} is not offered, expected one of {', '.join(_ROPES)}")
    longest = config.get("max_position_embeddings")
    if family == "phi3" and config.get("original_max_position_embeddings", longest) != longest:
        problems.append("onnx: a phi3 model with an extended context (LongRoPE) is not offered")
    names = config.get("architectures") or []
    if family in _FAMILIES and names and not str(names[0]).endswith("ForCausalLM"):
        problems.append(f"onnx: architecture {names[0]} is not offered, expected a causal language model")
    if problems:
        raise InputError.of(problems, "the dynamo exporter, which would serve others, is not part of this version")


def check_packages() -> None:
    """See that the builder and what it needs are installed, and that the builder is the one that was measured.

    Raises:
        MissingError: a package is missing, has another version, or both of ONNX Runtime's wheels are installed.
    """
    onnxruntime()
    missing = [name for name in ("onnxruntime_genai", *_PACKAGES) if util.find_spec(name) is None]
    if missing:
        raise MissingError(f"not installed: {', '.join(missing)}", "pip install 'lf-export[onnx]'")
    for name in ("onnxruntime-genai", "onnxruntime-genai-cuda"):
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        if found != BUILDER_VERSION:
            message = f"{name} {found} is installed, {BUILDER_VERSION} is the one whose graphs were measured"
            raise MissingError(message, f"pip install {name}=={BUILDER_VERSION}")
