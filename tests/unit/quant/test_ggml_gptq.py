import numpy as np
import pytest
import torch

from lf_export.quant import HeldOut, Moments
from lf_export.quant import ggml_gptq as module
from lf_export.quant.ggml import TYPES, quantize
from lf_export.quant.ggml_blocks import LAYOUTS, decode
from lf_export.quant.ggml_gptq import Compensator

WIDTH = 256


def inputs(tokens: int, seed: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(6)) * torch.linspace(0.1, 2, WIDTH) ** 2
    return torch.randn(tokens, WIDTH, generator=generator) @ mix


def moments_of(X: torch.Tensor) -> Moments:
    moments = Moments.zeros(WIDTH)
    moments.add(X)
    return moments


@pytest.fixture(scope="module")
def moments() -> Moments:
    return moments_of(inputs(2000))


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return {"q": torch.randn(24, WIDTH, generator=generator) * 0.1, "k": torch.randn(8, WIDTH, generator=generator)}


def importance_of(moments: Moments) -> np.ndarray:
    return moments.importance().numpy()


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_held_out_error_falls_and_scales_and_minima_stay(
    name: str, moments: Moments, weights: dict[str, torch.Tensor]
) -> None:
    rows, kind = inputs(200, seed=8), TYPES[name]
    importance = importance_of(moments)
    solved = Compensator(moments, HeldOut(rows)).solve(weights, kind, importance)
    for weight, W in weights.items():
        found = solved[weight]
        ours, theirs = decode(found.data, kind), decode(quantize(W.numpy(), kind, importance), kind)
        difference = (W - torch.from_numpy(ours.values())).double()
        expected = (rows.double() @ difference.t()).square().sum() / (rows.double() @ W.double().t()).square().sum()
        assert found.error == pytest.approx(float(expected), rel=1e-3)
        assert (found.method, found.reason, found.judged_on) == ("gptq", None, "held-out")
        assert found.error < 0.9 * found.imatrix_error
        assert np.array_equal(ours.scales, theirs.scales)
        assert ours.minima is None or np.array_equal(ours.minima, theirs.minima)
        assert (ours.codes != theirs.codes).mean() > 0.05


def test_codes_stay_among_those_that_llama_cpp_gives(moments: Moments) -> None:
    # a row that wants to go beyond its grid: its error cannot be paid back
    W = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(3))
    W[:, ::2] *= 30
    found = Compensator(moments, None).solve({"w": W}, TYPES["Q8_0"], None)["w"]
    codes = decode(found.data, TYPES["Q8_0"]).codes
    assert int(codes.min()) >= 1  # -127, never -128
    assert int(codes.max()) == 255


def test_blocks_without_a_scale_stay_zero(moments: Moments) -> None:
    W = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(3))
    W[:, 32:64] = 0
    for name in LAYOUTS:
        found = Compensator(moments, None).solve({"w": W}, TYPES[name], None)["w"]
        values = decode(found.data, TYPES[name]).values()
        assert np.isfinite(values).all()
        assert found.error < 1


def test_too_few_tokens_fall_back_by_name(weights: dict[str, torch.Tensor]) -> None:
    found = Compensator(moments_of(inputs(3)), None).solve(weights, TYPES["Q4_0"], None)["k"]
    assert (found.method, found.gptq_error, found.damp) == ("imatrix", None, None)
    assert found.reason == f"only 3 tokens for a width of {WIDTH}, expected 4"
    assert np.array_equal(found.data, quantize(weights["k"].numpy(), TYPES["Q4_0"]))


def test_a_weight_whose_error_is_not_lower_falls_back_alone(
    moments: Moments, weights: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.compensated_codes

    def spoiled(*arguments: object) -> np.ndarray:
        codes = real(*arguments)  # type: ignore[arg-type]
        codes[:24] = 0  # q is lost
        return codes

    monkeypatch.setattr(module, "compensated_codes", spoiled)
    importance = importance_of(moments)
    solved = Compensator(moments, HeldOut(inputs(50, seed=9))).solve(weights, TYPES["Q4_K"], importance)
    assert {name: found.method for name, found in solved.items()} == {"q": "imatrix", "k": "gptq"}
    assert "not below that of llama.cpp's codes" in str(solved["q"].reason)
    assert np.array_equal(solved["q"].data, quantize(weights["q"].numpy(), TYPES["Q4_K"], importance))


def test_one_factor_serves_every_type(
    moments: Moments, weights: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    real = module.trusted_factor
    monkeypatch.setattr(module, "trusted_factor", lambda *arguments: made.append(1) or real(*arguments))
    compensator = Compensator(moments, None)
    for name in ("Q4_0", "Q4_K", "Q6_K"):
        compensator.solve(weights, TYPES[name], importance_of(moments))
    assert len(made) == 1


def test_pieces_in_threads_have_the_bytes_of_the_whole() -> None:
    W = torch.randn(33, WIDTH, generator=torch.Generator().manual_seed(3)).numpy()
    assert np.array_equal(quantize(W, TYPES["Q4_K"], None, threads=2), quantize(W, TYPES["Q4_K"]))
