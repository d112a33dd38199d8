import pytest
import torch

from lf_export.quant import Moments, Scheme
from lf_export.quant.awq import EXPONENTS, candidates, quantize_scaled, restored, search_scales
from lf_export.quant.fold import Fold
from lf_export.quant.gptq import rtn

SCHEME = Scheme(4, 32, sym=False)


def moment(width: int = 64, spread: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    moments = Moments.zeros(width)
    moments.add(
        torch.randn(500, width, generator=generator) * torch.exp(spread * torch.randn(width, generator=generator))
    )
    return moments.H


@pytest.fixture(name="W")
def weight() -> torch.Tensor:
    return torch.randn(48, 64, generator=torch.Generator().manual_seed(4))


def loss(W: torch.Tensor, H: torch.Tensor, s: torch.Tensor | None, scheme: Scheme = SCHEME) -> float:
    E = restored(quantize_scaled(W, H, s, scheme), s) - W
    return float(((E @ H) * E).sum())


def test_scales_lose_less_where_channels_differ(W: torch.Tensor) -> None:
    H = moment()
    found = search_scales(W, H, Fold(torch.arange(64), 64), SCHEME)
    assert found.exponent in EXPONENTS
    assert loss(W, H, found.divisors) < 0.7 * loss(W, H, None)


def test_channels_that_do_not_differ_are_not_scaled() -> None:
    found = search_scales(torch.eye(32).repeat(2, 1), torch.eye(32), Fold(torch.arange(32), 32), SCHEME)
    assert found.exponent is None
    assert torch.equal(found.divisors, torch.ones(32))


def test_channels_of_one_maker_have_one_scale_and_rows_of_none_have_one(W: torch.Tensor) -> None:
    fold = Fold(torch.arange(32).repeat_interleave(2) + 8, 48)
    for _, divisors in candidates(W, moment(), fold):
        assert divisors[:8].tolist() == [1.0] * 8
        assert divisors[40:].tolist() == [1.0] * 8
        low, high = torch.aminmax(divisors[8:40])
        assert float(low * high) == pytest.approx(1, rel=1e-5)


def test_a_channel_that_was_never_used_gets_a_finite_scale(W: torch.Tensor) -> None:
    H = moment()
    H[5] = 0
    H[:, 5] = 0
    for _, divisors in candidates(W, H, Fold(torch.arange(64), 64)):
        assert bool(torch.isfinite(divisors).all())
        assert bool((divisors > 0).all())


def test_the_scale_of_the_whole_moment_does_not_matter(W: torch.Tensor) -> None:
    fold, H = Fold(torch.arange(64), 64), moment()
    one, other = (search_scales(W, factor * H, fold, SCHEME) for factor in (1.0, 4096.0))
    assert one.exponent == other.exponent
    torch.testing.assert_close(one.divisors, other.divisors)


@pytest.mark.parametrize("size", [16, 64, -1])
def test_clipping_against_blocks_of_the_moment_beats_the_extremes(W: torch.Tensor, size: int) -> None:
    H, scheme = moment(), Scheme(4, size, sym=False)
    plain = loss(W, H, None, Scheme(4, size, sym=False, clip_search=False))
    E = restored(rtn(W, scheme), None) - W
    assert plain == pytest.approx(float(((E @ H) * E).sum()), rel=1e-5)
    assert loss(W, H, None, scheme) < plain


def test_a_group_that_is_too_wide_for_blocks_is_clipped_by_the_diagonal() -> None:
    W = torch.randn(16, 320, generator=torch.Generator().manual_seed(5))
    H, scheme = moment(320), Scheme(4, -1, sym=False)
    s = torch.linspace(0.5, 2, 320)
    assert loss(W, H, s, scheme) < loss(W, H, s, Scheme(4, -1, sym=False, clip_search=False))
