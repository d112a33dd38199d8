import pytest
import torch

from lf_export.quant import Scheme, dequantize_awq
from lf_export.quant.gptq import dequantize, rtn
from lf_export.quant.pack_awq import pack_awq, pack_nibbles

ASYM = Scheme(4, 16, sym=False)


def test_eight_outputs_share_a_word_even_ones_in_its_lower_half() -> None:
    values = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7]], dtype=torch.uint8)
    assert int(pack_nibbles(values)[0, 0]) == 0x75316420


def test_stored_tensors_have_the_shapes_and_types_of_the_layout() -> None:
    stored = pack_awq(rtn(torch.randn(24, 64), ASYM))
    assert {name: (tuple(t.shape), t.dtype) for name, t in stored.items()} == {
        "qweight": ((64, 3), torch.int32),
        "qzeros": ((4, 3), torch.int32),
        "scales": ((4, 24), torch.float16),
    }
    assert all(tensor.is_contiguous() for tensor in stored.values())


def test_a_zero_is_stored_as_it_is() -> None:
    stored = pack_awq(rtn(torch.randn(16, 32), Scheme(4, 16)))
    assert {int(word) & 0xFFFFFFFF for word in stored["qzeros"].flatten()} == {0x88888888}


def test_stored_tensors_give_back_the_weight_exactly() -> None:
    quantized = rtn(torch.randn(32, 64), ASYM)
    assert torch.equal(dequantize_awq(pack_awq(quantized)), dequantize(quantized))


def test_what_the_layout_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="4 bits, not 8"):
        pack_awq(rtn(torch.randn(8, 32), Scheme(8, 16)))
    with pytest.raises(ValueError, match="multiple of 8"):
        pack_awq(rtn(torch.randn(12, 32), ASYM))
    scattered = rtn(torch.randn(8, 32), ASYM)
    scattered.g_idx.copy_(scattered.g_idx.flip(0))
    with pytest.raises(ValueError, match="runs of columns"):
        pack_awq(scattered)
