"""The AWQ `gemm` layout: eight integers of 4 bits to an int32 word along the outputs, in an interleaved order.

qweight int32 [in, out / 8], qzeros int32 [groups, out / 8], scales fp16 [groups, out], as AutoAWQ wrote them and
gptqmodel, Transformers, vLLM and SGLang read them (`version: gemm`). Zeros are stored as they are.
"""

from collections.abc import Mapping

import torch

from lf_export.quant.gptq import Quantized, dequantize

STORED = ("qweight", "qzeros", "scales")
BITS = 4

# Which of eight neighbouring outputs lies in each nibble of a word, from the lowest: kernels that widen two nibbles at
# once find neighbours in the halves of a register.
_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def pack_awq(quantized: Quantized) -> dict[str, torch.Tensor]:
    """The three stored tensors of a weight with 4 bits whose groups are runs of columns.

    Raises:
        ValueError: other bits, groups that are not runs, or a number of outputs that does not fill words.
    """
    width, groups = quantized.q.shape[1], quantized.scales.shape[1]
    if quantized.bits != BITS:
        raise ValueError(f"the layout holds 4 bits, not {quantized.bits}")
    if not torch.equal(quantized.g_idx, _runs(width, groups).to(quantized.g_idx)):
        raise ValueError("the layout has no group index, expected groups that are runs of columns")
    return {
        "qweight": pack_nibbles(quantized.q.t()),
        "qzeros": pack_nibbles(quantized.zeros.t()),
        "scales": quantized.scales.t().contiguous(),
    }


def unpack_awq(stored: Mapping[str, torch.Tensor]) -> Quantized:
    """Undo `pack_awq`, bit for bit: the unpacked is equal to what was packed."""
    width, groups = stored["qweight"].shape[0], stored["scales"].shape[0]
    return Quantized(
        q=unpack_nibbles(stored["qweight"]).t(),
        scales=stored["scales"].t(),
        zeros=unpack_nibbles(stored["qzeros"]).t(),
        g_idx=_runs(width, groups).to(stored["qweight"].device),
        bits=BITS,
    )


def dequantize_awq(stored: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The weight [out, in] fp32 that the three stored tensors of a linear stand for, exact."""
    return dequantize(unpack_awq(stored))


def pack_nibbles(values: torch.Tensor) -> torch.Tensor:
    """Pack values [n, m], integers below 16, along m into int32 [n, m / 8]."""
    if values.shape[1] % len(_ORDER):
        raise ValueError(f"{values.shape[1]} outputs do not fill whole words, expected a multiple of {len(_ORDER)}")
    eights = values.reshape(values.shape[0], -1, len(_ORDER))
    words = torch.zeros(eights.shape[:2], dtype=torch.int32, device=values.device)
    for place, output in enumerate(_ORDER):
        words |= eights[:, :, output].to(torch.int32) << (BITS * place)
    return words


def unpack_nibbles(words: torch.Tensor) -> torch.Tensor:
    """Unpack int32 [n, m / 8] to uint8 [n, m]."""
    eights = torch.empty(*words.shape, len(_ORDER), dtype=torch.uint8, device=words.device)
    for place, output in enumerate(_ORDER):
        eights[:, :, output] = (words >> (BITS * place)) & 15
    return eights.flatten(1)


def _runs(width: int, groups: int) -> torch.Tensor:
    return torch.arange(width, dtype=torch.int32) // (width // groups)
