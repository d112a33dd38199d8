import pytest
import torch

from lf_export.quant import HeldOut, Moments
from lf_export.quant import moments as module
from lf_export.quant.moments import Pool


@pytest.fixture(params=[7, 256, 300], name="X")
def rows(request: pytest.FixtureRequest) -> torch.Tensor:
    return torch.randn(50, request.param, generator=torch.Generator().manual_seed(1))


def test_h_is_the_symmetric_sum_of_outer_products_across_blocks(
    X: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLOCK", 64)
    moments = Moments.zeros(X.shape[1])
    moments.add(X[:20])
    moments.add(X[20:])
    expected = X.double().t() @ X.double()
    torch.testing.assert_close(moments.H.double(), expected, rtol=1e-5, atol=1e-4)
    assert torch.equal(moments.H, moments.H.t())


def test_tokens_that_come_after_h_was_read_still_count(X: torch.Tensor) -> None:
    moments = Moments.zeros(X.shape[1])
    moments.add(X[:20])
    first = moments.H.clone()
    moments.add(X[20:])
    assert not torch.equal(first, moments.H)
    assert torch.equal(moments.H, moments.H.t())


def test_a_weight_of_two_counts_a_token_twice(X: torch.Tensor) -> None:
    weighted, repeated = Moments.zeros(X.shape[1]), Moments.zeros(X.shape[1])
    weighted.add(X, torch.full((len(X),), 2.0))
    repeated.add(X)
    repeated.add(X)
    torch.testing.assert_close(weighted.H, repeated.H, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(weighted.abs_sum, repeated.abs_sum)
    assert weighted.weight_sum == repeated.weight_sum == 2 * len(X)
    assert (weighted.count, repeated.count) == (len(X), 2 * len(X))


def test_rows_in_bf16_are_summed_in_fp32(X: torch.Tensor) -> None:
    rounded = X.bfloat16()
    moments, exact = Moments.zeros(X.shape[1]), Moments.zeros(X.shape[1])
    weights = torch.linspace(0.5, 2, len(X))
    for start in range(0, 50, 10):
        moments.add(rounded[start : start + 10], weights[start : start + 10])
        exact.add(rounded[start : start + 10].float(), weights[start : start + 10])
    # a root, a weighted row and a product are each rounded to 8 bits of mantissa
    assert float((moments.H - exact.H).norm() / exact.H.norm()) < 2**-7
    assert moments.H.dtype == torch.float32
    torch.testing.assert_close(moments.abs_sum, exact.abs_sum)


def test_importance_is_the_mean_square_of_each_channel(X: torch.Tensor) -> None:
    moments = Moments.zeros(X.shape[1])
    moments.add(X)
    torch.testing.assert_close(moments.importance(), X.square().mean(0))


def test_moments_of_nothing_have_no_importance() -> None:
    assert Moments.zeros(4).importance().tolist() == [0, 0, 0, 0]


def test_held_out_energy_is_the_squared_norm_of_the_outputs(X: torch.Tensor) -> None:
    W = torch.randn(5, X.shape[1])
    assert HeldOut(X).energy(W) == pytest.approx(float((X.double() @ W.double().t()).square().sum()), rel=1e-5)
    assert HeldOut(X[:0]).energy(W) == 0


def test_a_pool_counts_every_token_once_however_many_inputs_it_reached(X: torch.Tensor) -> None:
    whole = Moments.zeros(X.shape[1])
    whole.add(X, torch.linspace(0.5, 2, len(X)))
    parts = []
    for rows in (slice(0, 10), slice(10, 50), slice(0, 30), slice(30, 50), slice(0, 0)):  # each row in two of them
        part = Moments.zeros(X.shape[1])
        part.add(X[rows], torch.linspace(0.5, 2, len(X))[rows])
        parts.append(part)
    assert parts[1].H.equal(parts[1].H.t())  # one is mirrored already, the others are not
    pool = Pool(parts, [HeldOut(X[:4]), HeldOut(X[:0]), HeldOut(X[:4])], 2)
    torch.testing.assert_close(pool.moments.H, whole.H, rtol=1e-5, atol=1e-4)
    assert torch.equal(pool.moments.H, pool.moments.H.t())
    torch.testing.assert_close(pool.moments.abs_sum, whole.abs_sum)
    assert pool.moments.weight_sum == pytest.approx(whole.weight_sum)
    assert pool.moments.count == len(X)
    assert pool.heldout.X.shape == (4, X.shape[1])
