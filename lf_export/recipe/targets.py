"""What a recipe may say of the artifacts to make: a type for each format."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_serializer, model_validator

from lf_export.recipe.names import Strict
from lf_export.walk.budget import parse_size


def a_size(text: str) -> str:
    """A size such as `4GB`, as it is written."""
    parse_size(text)
    return text


class LinearOverride(Strict):
    """What deviates for the linears that a pattern matches; what is not given is as it is elsewhere."""

    bits: Literal[2, 3, 4, 8] | None = Field(None, description="Bits of each weight.")
    group_size: int | Literal["auto"] | None = Field(None, description="Columns that share a scale; -1: one a row.")
    skip: bool | None = Field(None, description="Leave the linears as they are.")


def _width(bits: float) -> int | float:
    whole = float(bits).is_integer()
    if bits not in {2, 3, 4, 8} and (whole or not 2 < bits < 8):
        raise ValueError(f"expected 2, 3, 4, 8, or an average between 2 and 8 that is not an integer, found {bits:g}")
    return int(bits) if whole else bits


class GptqTarget(Strict):
    """A GPTQ folder: loads in Transformers, vLLM and SGLang."""

    format: Literal["gptq"]
    bits: Annotated[float, AfterValidator(_width)] = Field(
        4,
        description="Bits of each weight; an average such as 4.25 gives the linears that matter most more than others.",
    )
    group_size: int | Literal["auto"] = Field(
        "auto",
        description="Columns that share a scale; -1: one scale a row; auto: the largest of 128, 64, 32, 16 that fits.",
    )
    sym: bool = Field(True, description="Symmetric grid.")
    desc_act: bool = Field(False, description="Store groups in activation order (slower at run time).")
    damp_percent: float = Field(0.01, gt=0, lt=1, description="Damping, as a share of the mean of diag(H).")
    overrides: dict[str, LinearOverride] = Field(
        default_factory=dict,
        description="What deviates, by globs over full names of modules (`*.down_proj`, `model.layers.0.*`); for each "
        "key the last pattern that matches and names it wins.",
    )

    @field_serializer("overrides")
    def _in_order(self, overrides: dict[str, LinearOverride]) -> list[list[Any]]:
        """Pairs: digests sort the keys of mappings, and here the order counts."""
        return [[pattern, override.model_dump(exclude_none=True)] for pattern, override in overrides.items()]


GgufType = Literal[
    "F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0",
    "IQ4_NL", "IQ4_XS", "Q3_K_L", "Q3_K_M", "Q3_K_S", "IQ3_M", "IQ3_S", "IQ3_XS", "IQ3_XXS", "Q2_K", "Q2_K_S",
    "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS",
]  # fmt: skip
"""llama.cpp's names of file types."""


GgmlType = Literal[
    "F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "Q3_K",
    "IQ3_S", "IQ3_XXS", "Q2_K", "IQ2_S", "IQ2_XS", "IQ2_XXS",
]  # fmt: skip
"""llama.cpp's names of types of tensors."""


class TensorOverride(Strict):
    """What deviates for the tensors that a pattern matches; what is not given is as it is elsewhere."""

    type: GgmlType | None = Field(None, description="The tensors' type; an error where its blocks do not fit.")
    method: Literal["gptq", "imatrix", "rtn"] | None = Field(None, description="How they are rounded.")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.type is None and self.method is None:
            raise ValueError("expected a type or a method")
        return self


class GgufTarget(Strict):
    """A GGUF file for llama.cpp."""

    format: Literal["gguf"]
    type: GgufType = "Q4_K_M"
    method: Literal["gptq", "imatrix", "rtn"] = Field(
        "gptq",
        description="How weights are rounded to llama.cpp's grids: gptq: errors are fed back through moments; "
        "imatrix: weighed by the importance matrix alone; rtn: without calibration.",
    )
    overrides: dict[str, TensorOverride] = Field(
        default_factory=dict,
        description="What deviates, by globs over names of matrices, llama.cpp's (`*.ffn_down`, `output`) or the "
        "checkpoint's (`*.down_proj`); for each key the last pattern that matches and names it wins.",
    )
    split_max_size: Annotated[str, AfterValidator(a_size)] | None = Field(
        None, description="The most bytes of tensors in a file, such as `2G`; a larger one is split into parts."
    )
    imatrix: str | None = Field(
        None,
        description="A file with an importance matrix, instead of the calibration pass's; relative to the recipe.",
    )

    @field_serializer("overrides")
    def _in_order(self, overrides: dict[str, TensorOverride]) -> list[list[Any]]:
        """Pairs, as for GPTQ."""
        return [[pattern, override.model_dump(exclude_none=True)] for pattern, override in overrides.items()]


class AwqTarget(Strict):
    """An AWQ folder: 4 bits, input channels scaled by their activation; loads in Transformers, vLLM and SGLang."""

    format: Literal["awq"]
    bits: Literal[4] = 4
    group_size: int | Literal["auto"] = Field(
        "auto",
        description="Columns that share a scale; -1: one scale a row; auto: the largest of 128, 64, 32, 16 that fits.",
    )


class OnnxTarget(Strict):
    """A folder for ONNX Runtime and ONNX Runtime GenAI."""

    format: Literal["onnx"]
    precision: Literal["fp32", "fp16", "int8", "int4"] = "int4"
    provider: Literal["cpu", "cuda"] = Field("cpu", description="The execution provider that the graph is for.")
    method: Literal["gptq", "awq", "rtn"] = Field(
        "gptq",
        description="How integers are found: calibrated by GPTQ, calibrated by AWQ (int4 without sym), or to nearest.",
    )
    group_size: Literal["auto", 16, 32, 64, 128, 256] = Field(
        "auto", description="Columns that share a scale; auto: the largest of 128, 64, 32, 16 that fits."
    )
    sym: bool = Field(False, description="Symmetric grid; zeros cost nothing here.")
    damp_percent: float = Field(0.01, gt=0, lt=1, description="Damping, as a share of the mean of diag(H).")
    lm_head: Literal["float", "int8", "int4"] = Field(
        "float", description="The output layer: not quantized, or rounded to nearest."
    )
    exporter: Literal["auto", "builder", "dynamo"] = Field(
        "auto",
        description="Who makes the graph: onnxruntime-genai's builder, or torch's dynamo exporter (fp32 and fp16 for "
        "cpu, in standard operators alone); auto: the builder where it serves.",
    )
    accuracy_level: Literal[1, 4] | None = Field(
        None,
        description="4: activations of quantized linears are rounded to int8; 1: fp32; "
        "where not given, 4 for cpu and 1 for cuda.",
    )


Target = Annotated[GptqTarget | GgufTarget | AwqTarget | OnnxTarget, Field(discriminator="format")]
