"""The blocks of llama.cpp's types, taken apart: scales, minima and codes out of bytes, and other codes into the bytes.

A block holds the codes of 32 or 256 elements in bit planes, and scales (for K-quants in two levels) that groups of its
elements share. What a code stands for is `scale · (code − zero) + minimum`, or `scale · codebook[code]`.

Source of the layouts: llama.cpp b11549, `ggml/src/ggml-common.h` (structs `block_*`) and `ggml/src/ggml-quants.c`
(`dequantize_row_*`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from lf_export.quant.ggml import TYPES, GgmlType

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
# [n, block bytes] → scales [n, groups], and minima or None
_Scales = Callable[[Bytes], tuple[Floats, Floats | None]]

# Sixteen values of IQ4_NL and IQ4_XS, dense near zero (`kvalues_iq4nl`).
_NONLINEAR = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


@dataclass(frozen=True)
class _Plane:
    """Some bits of every code: runs of `chunk` bytes, each byte with bits of 8 / `bits` elements, `chunk` apart.

    Attributes:
        start: the first byte in the block.
        nbytes: how many bytes.
        bits: of each code, the lowest first.
        chunk: bytes of a run; element `part · chunk + j` of a run lies in byte j, in bits from `part · bits`.
        shift: where the bits stand in the code.
    """

    start: int
    nbytes: int
    bits: int
    chunk: int
    shift: int = 0

    @property
    def stop(self) -> int:
        return self.start + self.nbytes

    def _places(self) -> npt.NDArray[np.uint8]:
        return np.arange(0, 8, self.bits, dtype=np.uint8).reshape(1, 1, -1, 1)

    def read(self, blocks: Bytes) -> Bytes:
        """The bits of every code of [n, block bytes], in their place, [n, elements]."""
        runs = blocks[:, self.start : self.stop].reshape(len(blocks), -1, 1, self.chunk)
        bits = (runs >> self._places()) & np.uint8((1 << self.bits) - 1)
        return np.asarray(bits.reshape(len(blocks), -1) << np.uint8(self.shift), np.uint8)

    def write(self, codes: Bytes, blocks: Bytes) -> None:
        """Put the bits of codes [n, elements] into [n, block bytes]."""
        bits = (codes >> np.uint8(self.shift)) & np.uint8((1 << self.bits) - 1)
        parts = bits.reshape(len(codes), -1, 8 // self.bits, self.chunk) << self._places()
        blocks[:, self.start : self.stop] = np.bitwise_or.reduce(parts, axis=2).reshape(len(codes), -1)


@dataclass(frozen=True)
class BlockLayout:
    """How a type stores codes and what they stand for.

    Attributes:
        kind: the type.
        group: elements that share a scale (and a minimum).
        bits: of a code.
        zero: the code that stands for 0 · scale; 0 where a minimum does its work, and for a codebook.
        lowest: the smallest code that llama.cpp's own quantizer gives.
        codebook: what codes stand for where they are not evenly spaced, ascending.
    """

    kind: GgmlType
    group: int
    bits: int
    planes: tuple[_Plane, ...]
    scales: _Scales
    zero: int = 0
    lowest: int = 0
    codebook: tuple[int, ...] | None = None
    flip: int = 0
    """Bits of a code that are stored inverted (the sign of Q8_0's bytes)."""

    @property
    def highest(self) -> int:
        """The largest code."""
        return (1 << self.bits) - 1


@dataclass(frozen=True)
class Decoded:
    """Rows of a type, taken apart.

    Attributes:
        layout: of the type.
        codes: uint8 [rows, width].
        scales: fp32 [rows, width / group].
        minima: fp32 likewise, None where codes are centred.
    """

    layout: BlockLayout
    codes: Bytes
    scales: Floats
    minima: Floats | None

    def values(self) -> Floats:
        """What the codes stand for, [rows, width], bit for bit what llama.cpp's dequantization gives."""
        steps = (
            np.array(self.layout.codebook, np.float32)[self.codes]
            if self.layout.codebook
            else self.codes.astype(np.float32) - np.float32(self.layout.zero)
        )
        steps *= np.repeat(self.scales, self.layout.group, axis=1)
        if self.minima is not None:
            steps += np.repeat(self.minima, self.layout.group, axis=1)
        return steps


def decode(data: Bytes, kind: GgmlType) -> Decoded:
    """Take rows apart.

    Args:
        data: [rows, bytes of a row].
        kind: a type of `LAYOUTS`.
    """
    layout, rows = LAYOUTS[kind.name], len(data)
    blocks = data.reshape(-1, kind.nbytes)
    codes = layout.planes[0].read(blocks)
    for plane in layout.planes[1:]:
        codes |= plane.read(blocks)
    codes ^= np.uint8(layout.flip)
    with np.errstate(over="ignore", invalid="ignore"):  # arbitrary bytes may hold scales that are not finite
        scales, minima = layout.scales(blocks)
    return Decoded(
        layout, codes.reshape(rows, -1), scales.reshape(rows, -1), None if minima is None else minima.reshape(rows, -1)
    )


def with_codes(data: Bytes, kind: GgmlType, codes: Bytes) -> Bytes:
    """The rows `data` with other codes [rows, width] under the same scales and minima.

    Law: `with_codes(data, kind, decode(data, kind).codes)` equals `data`.
    """
    layout = LAYOUTS[kind.name]
    blocks = data.reshape(-1, kind.nbytes).copy()
    stored = codes.reshape(len(blocks), -1) ^ np.uint8(layout.flip)
    for plane in layout.planes:
        plane.write(stored, blocks)
    return blocks.reshape(data.shape)


def _half(blocks: Bytes, start: int) -> Floats:
    """The fp16 at byte `start` of each block, [n, 1] fp32."""
    return np.ascontiguousarray(blocks[:, start : start + 2]).view(np.float16).astype(np.float32)


def _one(start: int) -> _Scales:
    return lambda blocks: (_half(blocks, start), None)


def _one_with_minimum(blocks: Bytes) -> tuple[Floats, Floats | None]:
    return _half(blocks, 0), _half(blocks, 2)


def _two_levels(blocks: Bytes) -> tuple[Floats, Floats | None]:
    """Q4_K and Q5_K: d, dmin, then 8 scales and 8 minima of 6 bits in 12 bytes (`get_scale_min_k4`)."""
    first, second, third = (blocks[:, start : start + 4] for start in (4, 8, 12))
    low = np.uint8(0x3F)
    scales = np.concatenate([first & low, (third & 0x0F) | ((first >> 6) << 4)], axis=1)
    minima = np.concatenate([second & low, (third >> 4) | ((second >> 6) << 4)], axis=1)
    return _half(blocks, 0) * scales.astype(np.float32), -(_half(blocks, 2) * minima.astype(np.float32))


def _q2_k(blocks: Bytes) -> tuple[Floats, Floats | None]:
    """16 bytes of a scale (low) and a minimum (high) of 4 bits each; d and dmin at the end."""
    packed = blocks[:, :16]
    scales, minima = (packed & 0x0F).astype(np.float32), (packed >> 4).astype(np.float32)
    return _half(blocks, 80) * scales, -(_half(blocks, 82) * minima)


def _q3_k(blocks: Bytes) -> tuple[Floats, Floats | None]:
    """16 scales of 6 bits, 32 is zero: low nibbles in 8 bytes, the two high bits of four at a time in 4 bytes."""
    low, high = blocks[:, 96:104], blocks[:, 104:108]
    nibbles = np.concatenate([low & 0x0F, low >> 4], axis=1)
    pairs = np.concatenate([(high >> np.uint8(shift)) & np.uint8(3) for shift in (0, 2, 4, 6)], axis=1)
    return _half(blocks, 108) * ((nibbles | (pairs << 4)).astype(np.float32) - 32), None


def _q6_k(blocks: Bytes) -> tuple[Floats, Floats | None]:
    scales = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8)
    return _half(blocks, 208) * scales.astype(np.float32), None


def _iq4_xs(blocks: Bytes) -> tuple[Floats, Floats | None]:
    """8 scales of 6 bits, 32 is zero: high bits in one 16-bit word, low nibbles in 4 bytes."""
    high = np.ascontiguousarray(blocks[:, 2:4]).view("<u2").astype(np.uint16)
    pairs = ((high >> np.arange(0, 16, 2, dtype=np.uint16)) & 3).astype(np.uint8)
    low = blocks[:, 4:8]
    nibbles = np.stack([low & 0x0F, low >> 4], axis=2).reshape(len(blocks), -1)
    return _half(blocks, 0) * ((nibbles | (pairs << 4)).astype(np.float32) - 32), None


_CENTRED_4 = BlockLayout(TYPES["Q4_0"], 32, 4, (_Plane(2, 16, 4, 16),), _one(0), zero=8)

LAYOUTS = {
    layout.kind.name: layout
    for layout in (
        _CENTRED_4,
        BlockLayout(TYPES["Q4_1"], 32, 4, (_Plane(4, 16, 4, 16),), _one_with_minimum),
        BlockLayout(TYPES["Q5_0"], 32, 5, (_Plane(6, 16, 4, 16), _Plane(2, 4, 1, 1, 4)), _one(0), zero=16),
        BlockLayout(TYPES["Q5_1"], 32, 5, (_Plane(8, 16, 4, 16), _Plane(4, 4, 1, 1, 4)), _one_with_minimum),
        BlockLayout(TYPES["Q8_0"], 32, 8, (_Plane(2, 32, 8, 32),), _one(0), zero=128, lowest=1, flip=0x80),
        BlockLayout(TYPES["Q2_K"], 16, 2, (_Plane(16, 64, 2, 32),), _q2_k),
        BlockLayout(TYPES["Q3_K"], 16, 3, (_Plane(32, 64, 2, 32), _Plane(0, 32, 1, 32, 2)), _q3_k, zero=4),
        BlockLayout(TYPES["Q4_K"], 32, 4, (_Plane(16, 128, 4, 32),), _two_levels),
        BlockLayout(TYPES["Q5_K"], 32, 5, (_Plane(48, 128, 4, 32), _Plane(16, 32, 1, 32, 4)), _two_levels),
        BlockLayout(TYPES["Q6_K"], 16, 6, (_Plane(0, 128, 4, 64), _Plane(128, 64, 2, 32, 4)), _q6_k, zero=32),
        replace(_CENTRED_4, kind=TYPES["IQ4_NL"], zero=0, codebook=_NONLINEAR),
        BlockLayout(TYPES["IQ4_XS"], 32, 4, (_Plane(8, 128, 4, 16),), _iq4_xs, codebook=_NONLINEAR),
    )
}
