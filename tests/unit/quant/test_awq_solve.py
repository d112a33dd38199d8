import pytest
import torch
from walk_data import moments_of

from lf_export.quant import HeldOut, Scheme
from lf_export.quant import awq_solve as module
from lf_export.quant.awq import Scales, restored
from lf_export.quant.awq_solve import quantize_awq
from lf_export.quant.fold import Fold

SCHEME = Scheme(4, 32, sym=False)
FOLD = Fold(torch.arange(64), 64, torch.linspace(0.5, 2, 64), torch.bfloat16)


def inputs(tokens: int, seed: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.exp(torch.randn(64, generator=torch.Generator().manual_seed(6)))
    return torch.randn(tokens, 64, generator=generator) * spread


def test_each_linear_is_judged_on_held_out_rows_with_its_scales_undone(weights: dict[str, torch.Tensor]) -> None:
    rows = inputs(100, seed=8)
    group = quantize_awq(weights, moments_of(inputs(500)), HeldOut(rows), SCHEME, FOLD)
    assert group.exponent is not None
    assert group.divisors is not None
    for name, W in weights.items():
        linear = group.linears[name]
        difference = (W - restored(linear.quantized, group.divisors)).double()
        expected = (rows.double() @ difference.t()).square().sum() / (rows.double() @ W.double().t()).square().sum()
        assert linear.error == pytest.approx(float(expected), rel=1e-4)
        assert (linear.method, linear.reason, linear.judged_on) == ("awq", None, "held-out")
        assert linear.error < linear.rtn_error


def test_the_stored_tensor_and_the_weights_agree_on_the_scales(weights: dict[str, torch.Tensor]) -> None:
    group = quantize_awq(weights, moments_of(inputs(500)), None, SCHEME, FOLD)
    assert group.stored is not None
    assert group.divisors is not None
    assert FOLD.held is not None
    torch.testing.assert_close(group.stored.float() * group.divisors, FOLD.held, rtol=2e-7, atol=0)
    assert group.linears["q"].judged_on == "calibration"


def test_rows_that_were_divided_are_judged_as_what_they_stand_for(weights: dict[str, torch.Tensor]) -> None:
    moments = moments_of(inputs(500))
    rows = torch.linspace(0.3, 3, 64)
    plain = quantize_awq(weights, moments, None, SCHEME, FOLD)
    divided = quantize_awq(weights, moments, None, SCHEME, FOLD, {"q": rows})
    assert divided.exponent == plain.exponent
    # only the rounding of each row's scales to fp16 is another
    assert divided.linears["q"].error == pytest.approx(plain.linears["q"].error, rel=0.01)
    assert divided.divisors is not None
    W = restored(divided.linears["q"].quantized, divided.divisors) * rows.unsqueeze(1)
    assert float((W - weights["q"]).norm() / weights["q"].norm()) < 0.2


def test_an_input_without_a_maker_is_clipped_only(weights: dict[str, torch.Tensor]) -> None:
    group = quantize_awq(weights, moments_of(inputs(500)), None, SCHEME)
    assert (group.divisors, group.stored, group.exponent) == (None, None, None)
    for linear in group.linears.values():
        assert (linear.method, linear.reason) == ("clip", None)
        assert linear.error < linear.rtn_error


def test_too_few_tokens_fall_back_by_name(weights: dict[str, torch.Tensor]) -> None:
    linear = quantize_awq(weights, moments_of(inputs(3)), None, SCHEME, FOLD).linears["k"]
    assert linear.method == "rtn"
    assert linear.reason == "only 3 tokens for a width of 64, expected 4"
    assert linear.error == linear.rtn_error


def test_scales_that_do_not_help_held_out_rows_are_left_out_by_name(
    weights: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    harmful = torch.logspace(-4, 4, 64)
    monkeypatch.setattr(module, "search_scales", lambda *_: Scales(harmful, 0.7))
    group = quantize_awq(weights, moments_of(inputs(500)), HeldOut(inputs(90, seed=9)), SCHEME, FOLD)
    assert (group.divisors, group.stored) == (None, None)
    for linear in group.linears.values():
        assert linear.method == "clip"
        assert linear.reason == "scales of exponent 0.7 do not beat rounding on held-out rows"
        assert linear.error < linear.rtn_error


def test_ranges_that_do_not_help_held_out_rows_are_left_out_by_name(weights: dict[str, torch.Tensor]) -> None:
    X = inputs(500)
    mirrored = HeldOut(inputs(90, seed=9) * (X.abs().mean(0) ** -2))  # what was large is small, and the reverse
    group = quantize_awq(weights, moments_of(X), mirrored, SCHEME)
    assert {linear.method for linear in group.linears.values()} == {"rtn"}
    for linear in group.linears.values():
        assert linear.reason == "clipped ranges do not beat rounding on held-out rows"
        assert linear.error == linear.rtn_error
