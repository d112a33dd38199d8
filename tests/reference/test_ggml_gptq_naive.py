"""Error feedback on llama.cpp's grids against the paper's algorithm in float64; blocks against the gguf package."""

import gguf
import gguf_folders
import numpy as np
import pytest
import torch
from naive_gptq import naive_compensation

from lf_export.quant import Moments, Scheme
from lf_export.quant.ggml import TYPES, quantize
from lf_export.quant.ggml_blocks import LAYOUTS, decode
from lf_export.quant.ggml_gptq import compensated_codes
from lf_export.quant.gptq import factorize

WIDTH = 512


@pytest.mark.parametrize("act_order", [True, False], ids=["act-order", "natural"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_compensated_codes_are_those_of_the_papers_algorithm_in_float64(name: str, act_order: bool) -> None:
    generator = torch.Generator().manual_seed(11)
    mix = torch.randn(WIDTH, WIDTH, generator=generator) * torch.rand(WIDTH, generator=generator) ** 3
    moments = Moments.zeros(WIDTH)
    moments.add(torch.randn(2000, WIDTH, generator=generator) @ mix)
    W = torch.randn(20, WIDTH, generator=generator) * 0.1
    layout = LAYOUTS[name]
    decoded = decode(quantize(W.numpy(), TYPES[name], moments.importance().numpy()), TYPES[name])
    factor = factorize(moments.H, Scheme(act_order=act_order))
    found = compensated_codes(W, factor, decoded)
    codes = np.arange(layout.lowest, layout.highest + 1)
    steps = np.array(layout.codebook) if layout.codebook else codes - layout.zero
    scales = np.repeat(decoded.scales.astype(np.float64), layout.group, axis=1)
    minima = 0 if decoded.minima is None else np.repeat(decoded.minima.astype(np.float64), layout.group, axis=1)
    allowed = scales[:, :, None] * steps + np.broadcast_to(minima, scales.shape)[:, :, None]
    expected = naive_compensation(W.double().numpy(), moments.H.double().numpy(), allowed, factor.order.tolist(), 0.01)
    # fp32 against fp64: a column on the border of two codes may fall on the other side, and then a few after it; at 8
    # bits, where steps are smallest, seen in 1 of 2,000
    assert float(np.mean(codes[expected] != found)) < 2e-3


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "imatrix"])
def test_decoded_blocks_are_bit_for_bit_what_the_gguf_package_reads(name: str, weighted: bool) -> None:
    W = gguf_folders.arithmetic((16, 512), 6, 1.0)
    W[3, :256], W[4, 32:64] = 0, 0
    importance = np.abs(gguf_folders.arithmetic((512,), 7, 1.0)) + np.float32(0.01)
    data = quantize(W, TYPES[name], importance if weighted else None)
    theirs = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[name])
    assert np.array_equal(decode(data, TYPES[name]).values().view(np.uint32), theirs.view(np.uint32))
