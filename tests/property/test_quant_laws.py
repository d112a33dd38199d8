import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lf_export.quant import Moments, Scheme
from lf_export.quant.gptq import Quantized, dequantize, factorize, gptq
from lf_export.quant.pack import alignment, pack, pack_rows, unpack, unpack_rows

BITS = st.sampled_from([2, 3, 4, 8])
SEEDS = st.integers(0, 2**31)


def integers(shape: tuple[int, int], bits: int, seed: int, low: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, 2**bits, shape, generator=generator, dtype=torch.int64).to(torch.uint8)


@given(BITS, st.integers(1, 4), st.integers(1, 9), SEEDS)
@settings(deadline=None)
def test_unpacked_integers_are_those_that_were_packed(bits: int, periods: int, columns: int, seed: int) -> None:
    q = integers((periods * alignment(bits), columns), bits, seed)
    words = pack_rows(q, bits)
    assert words.shape == (q.shape[0] * bits // 32, columns)
    assert torch.equal(unpack_rows(words, bits), q)


@given(BITS, st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), SEEDS)
@settings(deadline=None)
def test_an_unpacked_weight_is_the_one_that_was_packed(
    bits: int, in_periods: int, out_periods: int, groups: int, seed: int
) -> None:
    inputs, outputs = in_periods * alignment(bits), out_periods * alignment(bits)
    generator = torch.Generator().manual_seed(seed)
    quantized = Quantized(
        q=integers((outputs, inputs), bits, seed),
        scales=torch.rand(outputs, groups, generator=generator).half(),
        zeros=integers((outputs, groups), bits, seed + 1, low=1),
        g_idx=torch.randint(0, groups, (inputs,), generator=generator, dtype=torch.int32),
        bits=bits,
    )
    again = unpack(pack(quantized), bits)
    for name in ("q", "scales", "zeros", "g_idx"):
        assert torch.equal(getattr(again, name), getattr(quantized, name)), name
    assert torch.equal(dequantize(again), dequantize(quantized))


@given(BITS, st.booleans(), st.booleans(), st.booleans(), st.sampled_from([8, 16, -1]), SEEDS)
@settings(deadline=None, max_examples=40)
def test_every_integer_is_in_range_and_every_weight_within_a_grid_that_fp16_holds(
    bits: int, sym: bool, desc_act: bool, clip_search: bool, group_size: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scheme = Scheme(bits, group_size, sym=sym, desc_act=desc_act, clip_search=clip_search)
    moments = Moments.zeros(32)
    moments.add(torch.randn(40, 32, generator=generator))
    quantized = gptq(torch.randn(8, 32, generator=generator), factorize(moments.H, scheme), scheme)
    assert int(quantized.q.max()) <= 2**bits - 1
    assert int(quantized.zeros.min()) >= 1
    assert quantized.scales.dtype == torch.float16
    assert torch.bincount(quantized.g_idx).tolist() == [scheme.columns(32)] * quantized.scales.shape[1]
    assert bool(torch.isfinite(dequantize(quantized)).all())
