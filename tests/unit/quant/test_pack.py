import pytest
import torch

from lf_export.quant import Scheme, dequantize_stored
from lf_export.quant.gptq import dequantize, rtn
from lf_export.quant.pack import alignment, pack, pack_rows, unpack_rows


def test_four_bits_lie_eight_to_a_word_the_first_lowest() -> None:
    q = torch.tensor([[1], [2], [3], [4], [5], [6], [7], [15]], dtype=torch.uint8)
    assert int(pack_rows(q, 4)[0, 0]) & 0xFFFFFFFF == 0xF7654321


def test_three_bits_straddle_words_as_a_stream() -> None:
    q = (torch.arange(32, dtype=torch.uint8) % 8).view(32, 1)
    stream = sum(int(value) << (3 * i) for i, value in enumerate(q[:, 0]))
    words = [int(word) & 0xFFFFFFFF for word in pack_rows(q, 3)[:, 0]]
    assert words == [(stream >> (32 * i)) & 0xFFFFFFFF for i in range(3)]
    assert torch.equal(unpack_rows(pack_rows(q, 3), 3), q)


def test_a_symmetric_zero_of_eight_is_stored_as_seven() -> None:
    stored = pack(rtn(torch.randn(16, 32), Scheme(4, 16)))
    assert {int(word) & 0xFFFFFFFF for word in stored["qzeros"].flatten()} == {0x77777777}


def test_stored_tensors_have_the_shapes_and_types_of_the_layout() -> None:
    stored = pack(rtn(torch.randn(24, 64), Scheme(4, 16, sym=False)))
    assert {name: (tuple(t.shape), t.dtype) for name, t in stored.items()} == {
        "qweight": ((8, 24), torch.int32),
        "qzeros": ((4, 3), torch.int32),
        "scales": ((4, 24), torch.float16),
        "g_idx": ((64,), torch.int32),
    }
    assert all(tensor.is_contiguous() for tensor in stored.values())


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_stored_tensors_give_back_the_weight_exactly(bits: int) -> None:
    quantized = rtn(torch.randn(32, 64), Scheme(bits, 32, sym=False))
    assert torch.equal(dequantize_stored(pack(quantized), bits), dequantize(quantized))


def test_a_zero_of_nought_written_by_another_tool_is_read_as_nought() -> None:
    stored = pack(rtn(torch.randn(8, 32), Scheme(4, 32)))
    stored["qzeros"] = torch.full_like(stored["qzeros"], -1)  # each raw zero 15
    steps = dequantize_stored(stored, 4) / stored["scales"].float().t()
    assert float(steps.min()) >= 0


@pytest.mark.parametrize(("bits", "period"), [(2, 16), (3, 32), (4, 8), (8, 4)])
def test_widths_that_leave_a_word_half_full_are_refused(bits: int, period: int) -> None:
    assert alignment(bits) == period
    with pytest.raises(ValueError, match=f"multiple of {period}"):
        pack_rows(torch.zeros(period + 1, 4, dtype=torch.uint8), bits)
