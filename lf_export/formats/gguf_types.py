"""Which tensor gets which type: the recipe of llama-quantize.

A GGUF scheme such as Q4_K_M is a mixture: a default type, more bits for the tensors that suffer most, and a type with
smaller blocks where a width does not divide. The rules are those of llama.cpp b11549, `src/llama-quant.cpp`
(`llama_tensor_get_type_impl`, `tensor_type_fallback`), for decoders without experts.
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
        sensitive: the type of attn_v and ffn_down in the layers that `use_more_bits` picks, or of the first layers
            for the small mixtures; None where the scheme is not a mixture.
        imatrix: whether an importance matrix changes its bytes for the better.
    """

    name: str
    file_type: int
    default: str
    sensitive: str | None = None
    imatrix: bool = True


SCHEMES = {
    scheme.name: scheme
    for scheme in (
        GgufScheme("F32", 0, "F32", imatrix=False),
        GgufScheme("F16", 1, "F16", imatrix=False),
        GgufScheme("BF16", 32, "BF16", imatrix=False),
        GgufScheme("Q8_0", 7, "Q8_0", imatrix=False),
        GgufScheme("Q6_K", 18, "Q6_K"),
        GgufScheme("Q5_K_M", 17, "Q5_K", "Q6_K"),
        GgufScheme("Q5_K_S", 16, "Q5_K"),
        GgufScheme("Q4_K_M", 15, "Q4_K", "Q6_K"),
        GgufScheme("Q4_K_S", 14, "Q4_K", "Q5_K"),
    )
}

# Where a width is not a multiple of 256.
_FALLBACK = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}


@dataclass(frozen=True)
class ModelShape:
    """What the recipe asks of a model: GGUF architecture, layers, attention heads, tied embeddings."""

    architecture: str
    layers: int
    heads: int
    kv_heads: int
    tied: bool

    @property
    def is_70b(self) -> bool:
        """Whether llama.cpp takes it for a 70B model, whose few attn_v get more bits."""
        if self.layers != 80:
            return False
        return self.architecture == "qwen2" or (self.architecture == "llama" and self.heads != self.kv_heads)


def use_more_bits(layer: int, layers: int) -> bool:
    """Whether `layer` is one that the medium mixtures spare: the first and last eighth, and every third between."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def tensor_type(name: str, shape: Sequence[int], scheme: GgufScheme, model: ModelShape) -> GgmlType:
    """The type of the tensor `name` (GGUF's name) of `shape` [rows, width] in a file of `scheme`.

    Vectors (norms, biases) are always F32. A matrix whose width no quantized type divides stays F16, as in
    llama.cpp, also for Q8_0, where llama-quantize gives up and upstream's converter takes F16.
    """
    if len(shape) < 2 or not name.endswith(".weight"):
        return TYPES["F32"]
    kind = TYPES[scheme.default]
    if not kind.quantized:
        return kind
    kind = TYPES[_mixed(name, shape[-1], scheme, model)]
    if shape[-1] % kind.block and kind.name in _FALLBACK:
        kind = TYPES[_FALLBACK[kind.name]]
    return kind if shape[-1] % kind.block == 0 else TYPES["F16"]


def _mixed(name: str, width: int, scheme: GgufScheme, model: ModelShape) -> str:
    if name == "output.weight" or (name == "token_embd.weight" and model.tied):
        return "Q8_0" if scheme.default == "Q8_0" or width % TYPES[scheme.default].block else "Q6_K"
    _, _, rest = name.partition("blk.")
    layer = int(rest.partition(".")[0]) if rest else 0
    kind = scheme.default
    if name.endswith("attn_v.weight"):
        if scheme.name == "Q4_K_S":
            kind = "Q5_K" if layer < 4 else kind
        elif scheme.sensitive and use_more_bits(layer, model.layers):
            kind = scheme.sensitive
        if model.is_70b and kind == "Q4_K":
            kind = "Q5_K"
    elif name.endswith("ffn_down.weight"):
        if scheme.name == "Q4_K_S":
            kind = "Q5_K" if layer < model.layers // 8 else kind
        elif scheme.sensitive and use_more_bits(layer, model.layers):
            kind = scheme.sensitive
    return kind
