import numpy as np
import pytest
import torch
from naive_awq import naive_awq, naive_scaled

from lf_export.quant import Moments, Scheme
from lf_export.quant.awq import candidates, quantize_scaled, restored, search_scales
from lf_export.quant.fold import Fold

SCHEME = Scheme(4, 16, sym=False)
WIDTH = 48


def problem(seed: int) -> tuple[torch.Tensor, torch.Tensor, Fold]:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(WIDTH, WIDTH, generator=generator) * torch.exp(torch.randn(WIDTH, generator=generator))
    moments = Moments.zeros(WIDTH)
    moments.add(torch.randn(400, WIDTH, generator=generator) @ mix)
    W = torch.randn(24, WIDTH, generator=generator) * torch.exp(0.5 * torch.randn(WIDTH, generator=generator))
    return W, moments.H / 400, Fold(torch.arange(WIDTH), WIDTH)


@pytest.mark.parametrize("seed", range(6))
def test_the_search_finds_the_scales_of_the_search_written_out(seed: int) -> None:
    W, H, fold = problem(seed)
    exponent, scales, losses = naive_awq(W.double().numpy(), H.double().numpy(), 16)
    assert min(losses) < 0.9 * losses[0]  # the problem is one that scales help
    found = search_scales(W, H, fold, SCHEME)
    assert found.exponent == exponent
    np.testing.assert_allclose(found.divisors.numpy(), scales, rtol=1e-5)


def test_rounding_on_clipped_grids_is_that_which_is_written_out() -> None:
    W, H, fold = problem(7)
    for a, divisors in candidates(W, H, fold)[::3]:
        ours = restored(quantize_scaled(W, H, divisors, SCHEME), divisors)
        expected = naive_scaled(W.double().numpy(), H.double().numpy(), divisors.double().numpy(), 16)
        # fp32 against fp64: where two ranges or two integers are as good as each other, either may be taken
        different = np.abs(ours.numpy() - expected) > 1e-5 * float(W.abs().max())
        assert different.mean() < 0.01, a
