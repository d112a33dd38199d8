"""Which tensor gets which type: the recipe of llama-quantize.

A GGUF scheme such as Q4_K_M is a mixture: a default type, more bits for the tensors that suffer most, and a type with
smaller blocks where a width does not divide. The rules are those of llama.cpp b11549, `src/llama-quant.cpp`
(`llama_tensor_get_type_impl`, `tensor_type_fallback`, `tensor_allows_quantization`). Models with eight experts have
rules of their own there, made for Mixtral.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lf_export.quant.ggml import TYPES, GgmlType


@dataclass(frozen=True)
class GgufScheme:
    """A file type of llama.cpp.

    Attributes:
        name: as on llama-quantize's command line.
        file_type: `general.file_type` in the file (enum llama_ftype).
        default: the type of a matrix that no rule names.
        imatrix: whether an importance matrix changes its bytes for the better.
        needs_imatrix: whether llama.cpp refuses to make it without one.
    """

    name: str
    file_type: int
    default: str
    imatrix: bool = True
    needs_imatrix: bool = False


SCHEMES = {
    scheme.name: scheme
    for scheme in (
        GgufScheme("F32", 0, "F32", imatrix=False),
        GgufScheme("F16", 1, "F16", imatrix=False),
        GgufScheme("BF16", 32, "BF16", imatrix=False),
        GgufScheme("Q8_0", 7, "Q8_0", imatrix=False),
        GgufScheme("Q6_K", 18, "Q6_K"),
        GgufScheme("Q5_K_M", 17, "Q5_K"),
        GgufScheme("Q5_K_S", 16, "Q5_K"),
        GgufScheme("Q5_1", 9, "Q5_1"),
        GgufScheme("Q5_0", 8, "Q5_0"),
        GgufScheme("Q4_K_M", 15, "Q4_K"),
        GgufScheme("Q4_K_S", 14, "Q4_K"),
        GgufScheme("Q4_1", 3, "Q4_1"),
        GgufScheme("Q4_0", 2, "Q4_0"),
        GgufScheme("IQ4_NL", 25, "IQ4_NL"),
        GgufScheme("IQ4_XS", 30, "IQ4_XS"),
        GgufScheme("Q3_K_L", 13, "Q3_K"),
        GgufScheme("Q3_K_M", 12, "Q3_K"),
        GgufScheme("Q3_K_S", 11, "Q3_K"),
        GgufScheme("IQ3_M", 27, "IQ3_S"),
        GgufScheme("IQ3_S", 26, "IQ3_S"),
        GgufScheme("IQ3_XS", 22, "IQ3_S", needs_imatrix=True),
        GgufScheme("IQ3_XXS", 23, "IQ3_XXS", needs_imatrix=True),
        GgufScheme("Q2_K", 10, "Q2_K"),
        GgufScheme("Q2_K_S", 21, "Q2_K", needs_imatrix=True),
        GgufScheme("IQ2_M", 29, "IQ2_S", needs_imatrix=True),
        GgufScheme("IQ2_S", 28, "IQ2_XS", needs_imatrix=True),
        GgufScheme("IQ2_XS", 20, "IQ2_XS", needs_imatrix=True),
        GgufScheme("IQ2_XXS", 19, "IQ2_XXS", needs_imatrix=True),
    )
}

# Where a width is not a multiple of 256.
FALLBACK = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
FALLBACK |= dict.fromkeys(("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL")

# The schemes of two bits from codebooks: the smaller and the larger ones spare different tensors.
_IQ2_SMALL, _IQ2_LARGE = {"IQ2_XXS", "IQ2_XS"}, {"IQ2_S", "IQ2_M"}
# Those in which eight experts give attn_output five bits.
_OUTPUT_OF_MIXTRAL = {"Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M", "IQ4_NL", "IQ4_XS"}
_OUTPUT_OF_MIXTRAL |= {"IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M"}


@dataclass(frozen=True)
class ModelShape:
    """What the recipe asks of a model: GGUF architecture, layers, attention heads, tied embeddings, experts (or 0)."""

    architecture: str
    layers: int
    heads: int
    kv_heads: int
    tied: bool
    experts: int = 0

    @property
    def is_70b(self) -> bool:
        """Whether llama.cpp takes it for a 70B model, whose few attn_v get more bits."""
        if self.layers != 80:
            return False
        return self.architecture == "qwen2" or (self.architecture == "llama" and self.heads != self.kv_heads)

    @property
    def shares_values(self) -> bool:
        """Whether four heads or more share one attn_v, which is then small and dear."""
        return self.heads // self.kv_heads >= 4

    @property
    def like_mixtral(self) -> bool:
        """Whether the rules for eight experts hold: next to those, attention is small and cheap to spare."""
        return self.experts == 8


def use_more_bits(layer: int, layers: int) -> bool:
    """Whether `layer` is one that the medium mixtures spare: the first and last eighth, and every third between."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def is_quantizable(name: str, shape: Sequence[int]) -> bool:
    """Whether the tensor `name` (GGUF's name) is a matrix that files hold in smaller types; a router is not."""
    return len(shape) > 1 and name.endswith(".weight") and ".ffn_gate_inp." not in name


def tensor_type(name: str, shape: Sequence[int], scheme: GgufScheme, model: ModelShape, *, imatrix: bool) -> GgmlType:
    """The type of the tensor `name` (GGUF's name) of `shape` [..., rows, width] in a file of `scheme`.

    Vectors (norms, biases) and routers are always F32. A matrix whose width no quantized type divides stays F16, as in
    llama.cpp, also for Q8_0, where llama-quantize gives up and upstream's converter takes F16.

    Args:
        name: of the tensor, in GGUF's words.
        shape: as in the checkpoint.
        scheme: the file type.
        model: what the rules ask of the model.
        imatrix: whether the file is made with an importance matrix: some rules differ.
    """
    if not is_quantizable(name, shape):
        return TYPES["F32"]
    kind = TYPES[scheme.default]
    if not kind.quantized:
        return kind
    kind = TYPES[_mixed(name, shape[-1], scheme, model, imatrix)]
    if shape[-1] % kind.block and kind.name in FALLBACK:
        kind = TYPES[FALLBACK[kind.name]]
    return kind if shape[-1] % kind.block == 0 else TYPES["F16"]


def _mixed(name: str, width: int, scheme: GgufScheme, model: ModelShape, imatrix: bool) -> str:
    if name == "output.weight" or (name == "token_embd.weight" and model.tied):
        if scheme.default == "Q8_0" or width % TYPES[scheme.default].block:
            return "Q8_0"
        return "Q5_K" if scheme.name in _IQ2_SMALL | _IQ2_LARGE | {"IQ3_XXS"} else "Q6_K"
    if name == "token_embd.weight":
        if scheme.name in _IQ2_SMALL:
            return "Q2_K"
        return "IQ3_S" if scheme.name in _IQ2_LARGE | {"IQ3_XXS"} else scheme.default
    _, layer, part, _ = name.split(".", 3)  # blk.3.attn_v.weight
    part = part.removesuffix("_exps")
    rule = _two_bits if scheme.name in _IQ2_SMALL | _IQ2_LARGE else _RULES.get(part)
    return (rule(part, int(layer), scheme, model, imatrix) if rule else None) or scheme.default


def _two_bits(part: str, layer: int, scheme: GgufScheme, model: ModelShape, _: bool) -> str | None:
    spared = "IQ3_S" if scheme.name in _IQ2_LARGE else "Q2_K"
    if part in {"attn_v", "attn_qkv"}:
        return "Q4_K" if model.shares_values or model.experts >= 4 else spared
    if part == "attn_k" and model.like_mixtral:
        return "Q4_K"
    if part == "ffn_down":
        return spared if layer < model.layers // 8 else None
    if part == "attn_output":
        return "Q5_K" if model.like_mixtral else "IQ3_S" if scheme.name in _IQ2_LARGE else None
    return None


def _attn_v(_: str, layer: int, scheme: GgufScheme, model: ModelShape, imatrix: bool) -> str | None:
    if model.like_mixtral:
        return "Q8_0"
    shared, more = model.shares_values, use_more_bits(layer, model.layers)
    kind = {
        "Q2_K": "Q4_K" if shared else "Q3_K",
        "Q2_K_S": "Q4_K" if shared else None,
        "IQ3_XXS": "Q4_K" if shared else "IQ3_XXS" if imatrix else "IQ3_S",
        "IQ3_XS": "Q4_K" if shared else None,
        "IQ3_S": "Q4_K" if shared else None,
        "IQ3_M": "Q4_K",
        "Q3_K_M": "Q5_K" if layer < 2 else "Q4_K",
        "Q3_K_L": "Q5_K",
        "IQ4_NL": "Q5_K" if shared else None,
        "IQ4_XS": "Q5_K" if shared else None,
        "Q4_K_M": "Q6_K" if more else None,
        "Q5_K_M": "Q6_K" if more else None,
        "Q4_K_S": "Q5_K" if layer < 4 else None,
    }.get(scheme.name)
    return "Q5_K" if model.is_70b and (kind or scheme.default) in {"Q3_K", "Q4_K"} else kind


def _ffn_down(_: str, layer: int, scheme: GgufScheme, model: ModelShape, imatrix: bool) -> str | None:
    more, first = use_more_bits(layer, model.layers), layer < model.layers // 8
    return {
        "Q2_K": "Q3_K",
        "Q2_K_S": "Q4_K" if first else None,
        "IQ3_XXS": None if imatrix else "Q4_K" if first else "Q3_K",
        "Q3_K_M": "Q5_K" if layer < model.layers // 16 else "Q4_K",
        "IQ3_M": "Q4_K" if first or (model.like_mixtral and more) else None,
        "Q3_K_L": "Q5_K",
        "Q4_K_M": "Q6_K" if more else None,
        "IQ4_NL": "Q5_K" if first and not imatrix else None,
        "IQ4_XS": "Q5_K" if first and not imatrix else None,
        "Q5_K_M": "Q6_K" if more else None,
        "Q4_K_S": "Q5_K" if first else None,
        "Q4_0": "Q4_1" if first and imatrix else None,
        "Q5_0": "Q5_1" if first and imatrix else None,
    }.get(scheme.name)


def _attn_output(_: str, __: int, scheme: GgufScheme, model: ModelShape, ___: bool) -> str | None:
    if model.like_mixtral:
        return "Q5_K" if scheme.name in _OUTPUT_OF_MIXTRAL else None
    kinds = {"Q2_K": "Q3_K", "IQ3_XXS": "IQ3_S", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "IQ3_M": "Q4_K"}
    return kinds.get(scheme.name)


def _attn_q_or_k(part: str, _: int, scheme: GgufScheme, model: ModelShape, __: bool) -> str | None:
    if part == "attn_k" and model.like_mixtral:
        return "Q8_0"
    return {"IQ3_XS": "IQ3_XXS", "IQ3_XXS": "IQ2_S"}.get(scheme.name)


def _ffn_gate_or_up(_: str, layer: int, scheme: GgufScheme, model: ModelShape, __: bool) -> str | None:
    inner = model.layers // 8 <= layer < 7 * model.layers // 8
    return "IQ3_XXS" if scheme.name == "IQ3_XS" and inner else None


_RULES = {
    "attn_q": _attn_q_or_k,
    "attn_k": _attn_q_or_k,
    "attn_v": _attn_v,
    "attn_qkv": _attn_v,  # llama.cpp takes it for attn_v
    "attn_output": _attn_output,
    "ffn_gate": _ffn_gate_or_up,
    "ffn_up": _ffn_gate_or_up,
    "ffn_down": _ffn_down,
}
