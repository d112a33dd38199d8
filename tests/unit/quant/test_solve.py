import pytest
import torch
from walk_data import moments_of

from lf_export.quant import HeldOut, Scheme
from lf_export.quant import solve as module
from lf_export.quant.gptq import dequantize
from lf_export.quant.solve import quantize_group

SCHEME = Scheme(4, 32)


def inputs(tokens: int, seed: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(64, 64, generator=torch.Generator().manual_seed(6)) * torch.linspace(0.1, 2, 64)
    return torch.randn(tokens, 64, generator=generator) @ mix


def test_each_linear_of_a_group_is_judged_on_held_out_rows(weights: dict[str, torch.Tensor]) -> None:
    rows = inputs(100, seed=8)
    solutions = quantize_group(weights, moments_of(inputs(500)), HeldOut(rows), SCHEME)
    for name, W in weights.items():
        solution = solutions[name]
        difference = (W - dequantize(solution.quantized)).double()
        expected = (rows.double() @ difference.t()).square().sum() / (rows.double() @ W.double().t()).square().sum()
        assert solution.error == pytest.approx(float(expected), rel=1e-4)
        assert (solution.method, solution.reason, solution.judged_on) == ("gptq", None, "held-out")
        assert solution.error < solution.rtn_error
        assert solution.damp == pytest.approx(0.01)


def test_without_held_out_rows_the_moments_judge_and_the_solution_says_so(weights: dict[str, torch.Tensor]) -> None:
    X = inputs(500)
    on_moments = quantize_group(weights, moments_of(X), None, SCHEME)["q"]
    on_rows = quantize_group(weights, moments_of(X), HeldOut(X), SCHEME)["q"]
    assert on_moments.judged_on == "calibration"
    assert on_moments.error == pytest.approx(on_rows.error, rel=1e-3)
    assert quantize_group(weights, moments_of(X), HeldOut(X[:0]), SCHEME)["q"].judged_on == "calibration"


def test_too_few_tokens_fall_back_by_name(weights: dict[str, torch.Tensor]) -> None:
    solution = quantize_group(weights, moments_of(inputs(3)), None, SCHEME)["k"]
    assert solution.method == "rtn"
    assert solution.reason == "only 3 tokens for a width of 64, expected 4"
    assert solution.damp is None
    assert solution.gptq_error is None
    assert solution.error == solution.rtn_error


def test_moments_without_a_factor_fall_back_by_name(weights: dict[str, torch.Tensor]) -> None:
    moments = moments_of(inputs(500))
    moments.upper[0, 1] = moments.upper[1, 0] = 1e9
    solution = quantize_group(weights, moments, HeldOut(inputs(50, seed=9)), SCHEME)["q"]
    assert solution.method == "rtn"
    assert solution.reason is not None
    assert "no Cholesky factor" in solution.reason


def test_an_error_that_is_not_below_roundings_falls_back_by_name(
    weights: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(W: torch.Tensor, factor: object, scheme: Scheme) -> object:  # noqa: ARG001
        return module.rtn(torch.cat([torch.zeros(64, 64), W[64:]]), scheme)  # q is lost, k is as good as rounding

    monkeypatch.setattr(module, "gptq", spoiled)
    solutions = quantize_group(weights, moments_of(inputs(500)), HeldOut(inputs(50, seed=9)), SCHEME)
    for name in ("q", "k"):
        assert solutions[name].method == "rtn"
        assert "not below rounding's" in str(solutions[name].reason)
    assert solutions["q"].gptq_error == pytest.approx(1.0)
    torch.testing.assert_close(
        dequantize(solutions["q"].quantized), dequantize(module.rtn(weights["q"], SCHEME)), rtol=0, atol=0
    )


def test_one_linear_that_falls_back_does_not_take_the_other_along(
    weights: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.gptq

    def half_spoiled(W: torch.Tensor, factor: object, scheme: Scheme) -> object:
        return real(torch.cat([torch.zeros(64, 64), W[64:]]), factor, scheme)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "gptq", half_spoiled)
    solutions = quantize_group(weights, moments_of(inputs(500)), HeldOut(inputs(50, seed=9)), SCHEME)
    assert {name: solution.method for name, solution in solutions.items()} == {"q": "rtn", "k": "gptq"}
