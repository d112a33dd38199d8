"""The layout of ONNX Runtime's `MatMulNBits` weights, read back bit for bit.

B uint8 [N, blocks, block_size · bits / 8], the first value in the lowest bits; scales [N · blocks]; zero points packed
along the blocks of a row, each row filled up to whole bytes. Specification: `com.microsoft.MatMulNBits` in
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

import torch

from lf_export.quant.gptq import Quantized

# What its CPU and CUDA kernels have.
BLOCK_SIZES = (256, 128, 64, 32, 16)


def unpack_nbits(
    B: torch.Tensor, scales: torch.Tensor, zero_points: torch.Tensor | None, bits: int, block_size: int
) -> Quantized:
    """The integers and the grid that a node's initializers hold.

    Args:
        B: as in the layout above.
        scales: fp32 or fp16, any shape of N · blocks elements.
        zero_points: uint8, or None for the middle of the range.
        bits: 4 or 8.
        block_size: input columns that share a scale.

    Returns:
        With scales in their own dtype: the caller sees whether they are fp16 values.
    """
    rows, blocks = B.shape[:2]
    q = _values(B, bits).reshape(rows, blocks * block_size)
    if zero_points is None:
        zeros = torch.full((rows, blocks), 1 << (bits - 1), dtype=torch.uint8)
    else:
        zeros = _values(zero_points.reshape(rows, -1), bits)[:, :blocks]
    g_idx = torch.arange(blocks * block_size, dtype=torch.int32) // block_size
    return Quantized(q, scales.reshape(rows, blocks), zeros, g_idx, bits)


def _values(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """The integers in the bytes of the last dimension."""
    if bits == 8:
        return packed
    parts = [(packed >> shift) & (2**bits - 1) for shift in range(0, 8, bits)]
    return torch.stack(parts, dim=-1).flatten(-2)
