"""What an ONNX target is asked for, and what follows of it from shapes alone."""

from collections.abc import Mapping
from math import prod
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from lf_export.checkpoint.index import Checkpoint
from lf_export.formats.base import FormatOptions
from lf_export.formats.linears import linear_names
from lf_export.formats.onnx_import import block_size_for
from lf_export.formats.onnx_rules import Exporter, exporter_for
from lf_export.quant.grid import Scheme
from lf_export.walk.families import family_of

_FLOAT_BYTES = {"fp32": 4, "fp16": 2}


class OnnxOptions(FormatOptions):
    """The options of an ONNX target.

    Attributes:
        precision: of the decoder's linears; fp32 and fp16 quantize nothing.
        provider: the execution provider that the graph is for. A graph for cuda is in fp16; it is compared with the
            model on the CPU.
        method: how integers are found: `gptq` or `awq` from the calibration pass, or `rtn`, rounding to nearest. AWQ's
            are those of the AWQ format: 4 bits, each group with a zero of its own, norms and biases that take scales.
        group_size: input columns that share a scale; auto: the largest of 128, 64, 32 and 16 that divides every width.
        sym: the zero is the middle of the grid. Zeros are stored either way and cost nothing at run time.
        damp_percent: damping, as a share of the mean of diag(H).
        lm_head: the output layer: `float` as the model's precision allows, or rounded to nearest to int8 or int4.
        exporter: who makes the graph: onnxruntime-genai's `builder`, or torch's `dynamo` exporter: fp32 and fp16 for
            the CPU, in standard operators alone. auto: the builder where it serves.
        accuracy_level: ONNX Runtime's: 4 rounds the activations of quantized linears to int8, 1 computes in fp32.
        threads: of the builder and the comparison.
    """

    precision: Literal["fp32", "fp16", "int8", "int4"] = "int4"
    provider: Literal["cpu", "cuda"] = "cpu"
    method: Literal["gptq", "awq", "rtn"] = "gptq"
    group_size: Literal["auto", 16, 32, 64, 128, 256] = "auto"
    sym: bool = False
    damp_percent: Annotated[float, Field(gt=0, lt=1)] = 0.01
    lm_head: Literal["float", "int8", "int4"] = "float"
    exporter: Literal["auto", "builder", "dynamo"] = "auto"
    accuracy_level: Literal[1, 4] | None = None
    threads: Annotated[int, Field(ge=1, le=64)] = 1

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.bits is None and self.lm_head != "float":
            raise ValueError(f"lm_head {self.lm_head} needs precision int8 or int4, not {self.precision}")
        if self.method == "awq" and (self.precision != "int4" or self.sym):
            raise ValueError(f"method awq needs precision int4 without sym, not {self.precision}, sym {self.sym}")
        return self

    @property
    def bits(self) -> int | None:
        """Of each quantized weight; None where nothing is quantized."""
        return {"int8": 8, "int4": 4}.get(self.precision)

    @property
    def arithmetic(self) -> str:
        """In which the graph computes what is not quantized."""
        return "fp16" if self.provider == "cuda" or self.precision == "fp16" else "fp32"

    @property
    def level(self) -> int | None:
        """The accuracy level of quantized nodes: of CPU graphs, 4 where nothing else is asked."""
        if self.bits is None:
            return None
        # On SmolLM2-135M, int4, one thread: level 4 takes 15 ms for a token, level 1 22 ms.
        return self.accuracy_level or (4 if self.provider == "cpu" else 1)


def exporter_of(checkpoint: Checkpoint, options: OnnxOptions) -> Exporter:
    """Who makes the graph.

    Raises:
        InputError: neither the builder nor the exporter was seen to get it right.
    """
    return exporter_for(checkpoint.config, options.precision, options.provider, options.exporter)


def scheme_of(checkpoint: Checkpoint, options: OnnxOptions) -> Scheme | None:
    """The integers' scheme, None where nothing is quantized.

    Raises:
        InputError: what the exporter, the layout or the walk does not admit.
    """
    exporter_of(checkpoint, options)
    family_of(checkpoint.config)
    if options.bits is None:
        return None
    size = block_size_for(checkpoint, options.group_size)
    return Scheme(bits=options.bits, group_size=size, sym=options.sym, damp_percent=options.damp_percent)


def size_of(checkpoint: Checkpoint, options: OnnxOptions) -> int:
    """Bytes of the weights in the graph's data, from shapes alone."""
    scheme = scheme_of(checkpoint, options)
    wide = _FLOAT_BYTES[options.arithmetic]
    linears = {f"{name}.weight" for name in linear_names(checkpoint)} if scheme else set()
    total = 0
    for name, info in checkpoint.tensors.items():
        if scheme is not None and name in linears:
            total += _packed_bytes(info.shape, scheme.bits, scheme.group_size, wide)
        elif name != "lm_head.weight":
            total += prod(info.shape) * wide
    head = checkpoint.info(family_of(checkpoint.config).embedding if checkpoint.tied else "lm_head.weight")
    if options.lm_head != "float":  # the builder's rounding has groups of 32 and no zeros
        total += _packed_bytes(head.shape, int(options.lm_head.removeprefix("int")), 32, wide)
    elif not checkpoint.tied:
        total += prod(head.shape) * wide
    if exporter_of(checkpoint, options) == "dynamo":  # its graph computes cosines and sines
        return total
    return total + _rotary_entries(checkpoint.config) * wide


def _rotary_entries(config: Mapping[str, Any]) -> int:
    """Elements of the cosines and sines that the graph holds for every position."""
    width = config.get("head_dim") or int(config["hidden_size"]) // int(config["num_attention_heads"])
    return int(config.get("max_position_embeddings", 0)) * int(width)


def _packed_bytes(shape: tuple[int, ...], bits: int, size: int, wide: int) -> int:
    rows, width = shape
    groups = -(-width // size)
    return rows * (groups * size * bits // 8 + groups * wide + -(-groups * bits // 8))
