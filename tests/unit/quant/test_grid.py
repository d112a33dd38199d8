import pytest
import torch

from lf_export.quant.grid import Scheme, find_grid, nearest


def _error(Wt: torch.Tensor, importance: torch.Tensor, grid: object, scheme: Scheme) -> torch.Tensor:
    q = nearest(Wt, grid, scheme).float()  # type: ignore[arg-type]
    size = scheme.columns(len(Wt))
    scales = grid.scales.repeat_interleave(size, 0)  # type: ignore[attr-defined]
    zeros = grid.zeros.repeat_interleave(size, 0)  # type: ignore[attr-defined]
    losses = (Wt - (q - zeros) * scales).square() * importance.unsqueeze(1)
    return losses.view(-1, size, Wt.shape[1]).sum(1)


@pytest.fixture(name="Wt")
def transposed_weight() -> torch.Tensor:
    return torch.randn(64, 24, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("sym", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_clipping_search_never_loses_to_the_extremes(Wt: torch.Tensor, bits: int, sym: bool) -> None:
    scheme = Scheme(bits, 16, sym=sym)
    importance = torch.rand(64) ** 3 + 1e-3
    plain, searched = find_grid(Wt, None, scheme), find_grid(Wt, importance, scheme)
    assert bool((_error(Wt, importance, searched, scheme) <= _error(Wt, importance, plain, scheme) * 1.00001).all())


def test_the_clipping_search_gives_up_an_extreme_that_does_not_matter(Wt: torch.Tensor) -> None:
    scheme = Scheme(4, 64)
    Wt[5] = 20.0
    importance = torch.ones(64)
    importance[5] = 1e-6
    assert bool((find_grid(Wt, importance, scheme).scales < find_grid(Wt, None, scheme).scales).all())


@pytest.mark.parametrize("search", [True, False])
def test_scales_are_fp16_values_and_zeros_leave_room_for_minus_one(Wt: torch.Tensor, search: bool) -> None:
    for sym in (True, False):
        for weight in (Wt, Wt.abs(), -Wt.abs(), torch.zeros_like(Wt), Wt * 1e-7, Wt * 1e5):
            scheme = Scheme(4, 32, sym=sym)
            grid = find_grid(weight, torch.ones(64) if search else None, scheme)
            assert torch.equal(grid.scales, grid.scales.half().float())
            assert bool((grid.scales > 0).all())
            assert bool(torch.isfinite(grid.scales).all())
            assert bool(((grid.zeros >= 1) & (grid.zeros <= 15) & (grid.zeros == grid.zeros.round())).all())


def test_the_search_gives_the_same_grid_in_one_chunk_and_in_many(
    Wt: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheme, importance = Scheme(4, 8, sym=False), torch.rand(64)
    whole = find_grid(Wt, importance, scheme)
    monkeypatch.setattr("lf_export.quant.grid._CHUNK", 1)
    parts = find_grid(Wt, importance, scheme)
    assert torch.equal(whole.scales, parts.scales)
    assert torch.equal(whole.zeros, parts.zeros)


def test_an_asymmetric_grid_serves_a_one_sided_weight_better(Wt: torch.Tensor) -> None:
    ones = torch.ones(64)
    errors = [
        float(_error(Wt.abs(), ones, find_grid(Wt.abs(), None, scheme), scheme).sum())
        for scheme in (Scheme(4, 32, sym=True), Scheme(4, 32, sym=False))
    ]
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize(("bits", "group_size", "width"), [(5, 16, 64), (4, 24, 64), (4, 0, 64), (4, -2, 64)])
def test_a_scheme_that_cannot_be_is_refused(bits: int, group_size: int, width: int) -> None:
    with pytest.raises(ValueError, match=r"expected one of|does not divide"):
        Scheme(bits, group_size).columns(width)
