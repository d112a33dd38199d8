"""The GPTQ v1 layout: integers as a stream of bits in int32 words, zeros stored minus one.

qweight int32 [in · bits / 32, out], qzeros int32 [groups, out · bits / 32], scales fp16 [groups, out], g_idx int32
[in], as AutoGPTQ wrote them and gptqmodel, Transformers, vLLM and SGLang read them (`checkpoint_format: gptq`).
"""

import math
from collections.abc import Mapping

import torch

from lf_export.quant.gptq import Quantized, dequantize
from lf_export.quant.grid import BITS

STORED = ("qweight", "qzeros", "scales", "g_idx")


def stored_bits(words: int, inputs: int) -> int:
    """The bits of a stored linear, from the rows of its qweight and the length of its g_idx.

    A folder may hold linears of different widths: their shapes say which, its config only what most have.

    Raises:
        ValueError: no admitted width gives these shapes.
    """
    bits = words * 32 // max(inputs, 1)
    if bits not in BITS or words * 32 != bits * inputs:
        raise ValueError(f"{words} words for {inputs} inputs are not {', '.join(map(str, BITS))} bits each")
    return bits


def alignment(bits: int) -> int:
    """How many integers fill whole words: both widths of a linear have to be a multiple of it."""
    return 32 // math.gcd(bits, 32)


def pack(quantized: Quantized) -> dict[str, torch.Tensor]:
    """The four stored tensors of a quantized weight."""
    bits = quantized.bits
    return {
        "qweight": pack_rows(quantized.q.t(), bits),
        # the layout stores zero − 1: the raw 7 of a symmetric 4-bit grid means 8
        "qzeros": pack_rows(quantized.zeros - 1, bits).t().contiguous(),
        "scales": quantized.scales.t().contiguous(),
        "g_idx": quantized.g_idx.to(torch.int32).contiguous(),
    }


def unpack(stored: Mapping[str, torch.Tensor], bits: int) -> Quantized:
    """Undo `pack`, bit for bit: the unpacked is equal to what was packed."""
    zeros = unpack_rows(stored["qzeros"].t(), bits)
    return Quantized(
        q=unpack_rows(stored["qweight"], bits).t(),
        scales=stored["scales"].t(),
        zeros=(zeros + 1) & (2**bits - 1),
        g_idx=stored["g_idx"],
        bits=bits,
    )


def dequantize_stored(stored: Mapping[str, torch.Tensor], bits: int) -> torch.Tensor:
    """The weight [out, in] fp32 that the four stored tensors of a linear stand for, exact."""
    return dequantize(unpack(stored, bits))


def pack_rows(q: torch.Tensor, bits: int) -> torch.Tensor:
    """Pack q [n, m], integers below 2^bits, along n into int32 [n · bits / 32, m], the first in the lowest bits."""
    period = alignment(bits)
    if q.shape[0] % period:
        raise ValueError(f"{q.shape[0]} values of {bits} bits do not fill whole words, expected a multiple of {period}")
    values = q.reshape(-1, period, q.shape[1])
    words = torch.zeros(values.shape[0], period * bits // 32, q.shape[1], dtype=torch.int32, device=q.device)
    for i in range(period):
        word, offset = divmod(i * bits, 32)
        value = values[:, i].to(torch.int32)
        words[:, word] |= value << offset
        if offset + bits > 32:  # a value of 3 bits can straddle two words
            words[:, word + 1] |= value >> (32 - offset)
    return words.reshape(-1, q.shape[1])


def unpack_rows(words: torch.Tensor, bits: int) -> torch.Tensor:
    """Unpack int32 [n · bits / 32, m] to uint8 [n, m]."""
    period = alignment(bits)
    grouped = words.reshape(-1, period * bits // 32, words.shape[1])
    mask = 2**bits - 1
    values = torch.empty(grouped.shape[0], period, words.shape[1], dtype=torch.uint8, device=words.device)
    for i in range(period):
        word, offset = divmod(i * bits, 32)
        value = grouped[:, word] >> offset
        if offset + bits > 32:
            # the shift is arithmetic: the sign bits that it brought in are masked away before the rest comes
            value = (value & (2 ** (32 - offset) - 1)) | (grouped[:, word + 1] << (32 - offset))
        values[:, i] = (value & mask).to(torch.uint8)
    return values.reshape(-1, words.shape[1])
