"""What onnxruntime-genai's builder and torch's dynamo exporter do right, and why the rest is refused.

The builder exits with 0 whatever it wrote, so only what was seen to give a model's own logits is asked of it, and the
same holds for the exporter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata, util
from typing import Any, Literal

from lf_export.errors import InputError, MissingError
from lf_export.quant.ort import onnxruntime

Exporter = Literal["builder", "dynamo"]

BUILDER_VERSION = "0.18.0"
_PACKAGES = ("onnx", "onnx_ir", "onnxscript")
_FAMILIES: dict[Exporter, tuple[str, ...]] = {
    "builder": ("llama", "mistral", "qwen2", "qwen3", "phi3"),
    "dynamo": ("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma3_text"),
}
_ROPES: dict[Exporter, tuple[str, ...]] = {
    "builder": ("default", "llama3"),
    "dynamo": ("default", "llama3", "linear"),
}


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


# Quantized nodes are the builder's alone, and no graph of the exporter was ever run on CUDA.
_EXPORTED = (("fp32", "cpu"), ("fp16", "cpu"))


def exporter_for(
    config: Mapping[str, Any], precision: str, provider: str, wanted: Exporter | Literal["auto"]
) -> Exporter:
    """Who makes the graph: `wanted`, or the builder where it serves, else torch's dynamo exporter.

    Args:
        config: of the model.
        precision: of the graph.
        provider: that it is for.
        wanted: an option of the format.

    Raises:
        InputError: what is not offered, by name, all reasons at once.
    """
    if wanted == "dynamo" or (wanted == "auto" and config.get("model_type") not in _FAMILIES["builder"]):
        problems = _problems(config, "dynamo")
        if (precision, provider) not in _EXPORTED:
            who = (
                "onnx: the dynamo exporter" if wanted == "dynamo" else f"onnx: model_type {config.get('model_type')!r}"
            )
            allowed = ", ".join("-".join(pair) for pair in _EXPORTED)
            problems.append(f"onnx: {who} is not offered for {precision}-{provider}, expected one of {allowed}")
        if problems:
            raise InputError.of(problems)
        return "dynamo"
    route(precision, provider)
    problems = _problems(config, "builder")
    if problems:
        raise InputError.of(problems)
    return "builder"


def _problems(config: Mapping[str, Any], exporter: Exporter) -> list[str]:
    """What of the architecture was not seen to be exported right."""
    problems, families = [], _FAMILIES[exporter]
    family = config.get("model_type")
    if family not in families:
        problems.append(f"onnx: model_type {family!r} is not offered, expected one of {', '.join(families)}")
    # Gemma 3 has an embedding for each kind of layer
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kinds = [each for each in rope.values() if isinstance(each, dict)] or [rope]
    found, ropes = [each.get("rope_type", each.get("type", "default")) for each in kinds], _ROPES[exporter]
    problems += [
        f"onnx: rope_type {kind!r} is not offered, expected one of {', '.join(ropes)}"
        for kind in dict.fromkeys(found)
        if kind not in ropes
    ]
    longest = config.get("max_position_embeddings")
    if family == "phi3" and config.get("original_max_position_embeddings", longest) != longest:
        problems.append("onnx: a phi3 model with an extended context (LongRoPE) is not offered")
    names = config.get("architectures") or []
    if family in families and names and not str(names[0]).endswith("ForCausalLM"):
        problems.append(f"onnx: architecture {names[0]} is not offered, expected a causal language model")
    return problems


def check_packages(exporter: Exporter) -> None:
    """See that an exporter and what it needs are installed, and that the builder is the one that was measured.

    Raises:
        MissingError: a package is missing, has another version, or both of ONNX Runtime's wheels are installed.
    """
    onnxruntime()
    own = ["onnxruntime_genai"] if exporter == "builder" else []
    missing = [name for name in (*own, *_PACKAGES) if util.find_spec(name) is None]
    if missing:
        raise MissingError(f"not installed: {', '.join(missing)}", "pip install 'lf-export[onnx]'")
    for name in ("onnxruntime-genai", "onnxruntime-genai-cuda") if own else ():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        if found != BUILDER_VERSION:
            message = f"{name} {found} is installed, {BUILDER_VERSION} is the one whose graphs were measured"
            raise MissingError(message, f"pip install {name}=={BUILDER_VERSION}")
