import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lf_export.quant.fold import Fold
from lf_export.quant.gptq import Quantized, dequantize
from lf_export.quant.pack_awq import pack_awq, pack_nibbles, unpack_awq, unpack_nibbles

SEEDS = st.integers(0, 2**31)


@given(st.integers(1, 9), st.integers(1, 9), SEEDS)
@settings(deadline=None)
def test_unpacked_nibbles_are_those_that_were_packed(rows: int, words: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 16, (rows, 8 * words), generator=generator).to(torch.uint8)
    packed = pack_nibbles(values)
    assert (packed.dtype, packed.shape) == (torch.int32, (rows, words))
    assert torch.equal(unpack_nibbles(packed), values)


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), SEEDS)
@settings(deadline=None)
def test_an_unpacked_weight_is_the_one_that_was_packed(words: int, size: int, groups: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    outputs, inputs = 8 * words, size * groups
    quantized = Quantized(
        q=torch.randint(0, 16, (outputs, inputs), generator=generator).to(torch.uint8),
        scales=torch.rand(outputs, groups, generator=generator).half(),
        zeros=torch.randint(0, 16, (outputs, groups), generator=generator).to(torch.uint8),
        g_idx=torch.arange(inputs, dtype=torch.int32) // size,
        bits=4,
    )
    again = unpack_awq(pack_awq(quantized))
    for name in ("q", "scales", "zeros", "g_idx"):
        assert torch.equal(getattr(again, name), getattr(quantized, name)), name
    assert torch.equal(dequantize(again), dequantize(quantized))


@given(st.sampled_from([torch.float32, torch.float16, torch.bfloat16]), st.sampled_from([0.0, 1.0]), SEEDS)
@settings(deadline=None)
def test_what_is_stored_times_its_divisors_is_what_was_held(dtype: torch.dtype, offset: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    held = torch.randn(32, generator=generator).to(dtype).float()
    held[3] = -offset  # a channel that is multiplied by nothing
    wanted = torch.exp(torch.randn(32, generator=generator))
    stored, divisors = Fold(torch.arange(32), 32, held, dtype, offset).divide(wanted)
    assert stored is not None
    assert stored.dtype == dtype
    assert bool((divisors > 0).all())
    whole = (held + offset).double()
    made = (stored.float() + offset).double() * divisors.double()
    # one fp32 division and one fp32 sum: a few units of 2^-24
    torch.testing.assert_close(made, whole, rtol=3e-7, atol=0)
