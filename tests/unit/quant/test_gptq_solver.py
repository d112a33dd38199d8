import pytest
import torch
from walk_data import moments_of

from lf_export.quant import Scheme
from lf_export.quant.gptq import NotPositiveError, dequantize, factorize, gptq, rtn


def correlated(n: int, tokens: int = 400, seed: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(n, n, generator=generator) * torch.rand(n, generator=generator) ** 2
    return torch.randn(tokens, n, generator=generator) @ mix


@pytest.fixture(scope="module", name="W")
def weight() -> torch.Tensor:
    return torch.randn(48, 96, generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module", name="H")
def second_moment() -> torch.Tensor:
    return moments_of(correlated(96)).H


def loss(W: torch.Tensor, approximation: torch.Tensor, H: torch.Tensor) -> float:
    D = W - approximation
    return float(((D @ H) * D).sum())


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("sym", [True, False])
@pytest.mark.parametrize("group_size", [16, 32, -1])
def test_error_feedback_beats_rounding_on_its_own_moments(
    W: torch.Tensor, H: torch.Tensor, bits: int, sym: bool, group_size: int
) -> None:
    scheme = Scheme(bits, group_size, sym=sym, clip_search=False)  # the same grid as rounding's
    quantized = gptq(W, factorize(H, scheme), scheme)
    assert loss(W, dequantize(quantized), H) < 0.8 * loss(W, dequantize(rtn(W, scheme)), H)


def test_groups_stay_in_place_with_act_order(W: torch.Tensor, H: torch.Tensor) -> None:
    scheme = Scheme(4, 32)
    quantized = gptq(W, factorize(H, scheme), scheme)
    assert quantized.g_idx.tolist() == [i // 32 for i in range(96)]
    assert quantized.g_idx.dtype == torch.int32


def test_desc_act_groups_columns_by_activation(W: torch.Tensor, H: torch.Tensor) -> None:
    scheme = Scheme(4, 32, desc_act=True)
    quantized = gptq(W, factorize(H, scheme), scheme)
    strongest = torch.argsort(H.diagonal(), descending=True, stable=True)
    assert sorted(quantized.g_idx.tolist()) == [i // 32 for i in range(96)]
    assert set(quantized.g_idx[strongest[:32]].tolist()) == {0}
    assert quantized.g_idx.tolist() != sorted(quantized.g_idx.tolist())


def test_without_any_order_columns_are_taken_from_left_to_right(H: torch.Tensor) -> None:
    factor = factorize(H, Scheme(4, 32, act_order=False))
    assert factor.order.tolist() == list(range(96))


def test_weights_stacked_on_one_input_come_out_as_if_alone(W: torch.Tensor, H: torch.Tensor) -> None:
    scheme = Scheme(4, 32)
    factor = factorize(H, scheme)
    together = gptq(W, factor, scheme)
    alone = gptq(W[10:20].contiguous(), factor, scheme)
    part = together.rows(10, 20)
    # a matrix product may add up in another order when it is wider: at most a rounding here and there
    assert float((part.q != alone.q).float().mean()) < 0.01
    assert torch.equal(part.scales, alone.scales)


def test_inputs_that_were_never_active_are_counted_and_rounded_to_nearest(W: torch.Tensor) -> None:
    X = correlated(96)
    X[:, 7] = 0
    X[:, 50] = 0
    scheme = Scheme(8, 32, clip_search=False)
    factor = factorize(moments_of(X).H, scheme)
    assert factor.dead == 2
    quantized = dequantize(gptq(W, factor, scheme))
    nearest = dequantize(rtn(W, scheme))
    torch.testing.assert_close(quantized[:, [7, 50]], nearest[:, [7, 50]], rtol=0, atol=0)
    assert not torch.equal(quantized, nearest)


def test_a_moment_of_rank_one_is_damped_as_asked() -> None:
    x = torch.randn(1, 32)
    assert factorize(x.t() @ x, Scheme(damp_percent=0.01)).damp == pytest.approx(0.01)


def test_damping_is_raised_tenfold_until_there_is_a_factor() -> None:
    H = torch.eye(16)
    H[0, 1] = H[1, 0] = 1.05  # not positive definite by a little more than the first damping
    assert factorize(H, Scheme(group_size=16, damp_percent=0.01)).damp == pytest.approx(0.1)


def test_a_matrix_that_no_damping_mends_is_refused() -> None:
    H = torch.eye(16)
    H[0, 1] = H[1, 0] = 100.0
    with pytest.raises(NotPositiveError, match="no Cholesky factor"):
        factorize(H, Scheme(group_size=16))
    with pytest.raises(NotPositiveError, match="NaN or Inf"):
        factorize(torch.full((4, 4), torch.nan), Scheme())


def test_factor_is_the_unit_triangle_of_h(H: torch.Tensor) -> None:
    scheme = Scheme(act_order=False, damp_percent=0.01)
    factor = factorize(H, scheme)
    damped = H.double() + torch.eye(96, dtype=torch.float64) * 0.01 * float(H.diagonal().mean())
    U = factor.lower.double().t()  # I + U, upper
    D = torch.linalg.solve_triangular(U, damped, upper=True)
    D = torch.linalg.solve_triangular(U, D.t(), upper=True)
    off_diagonal = D - torch.diag(D.diagonal())
    assert float(off_diagonal.abs().max() / D.diagonal().max()) < 1e-4


def test_shrinkage_distrusts_correlations_and_keeps_the_order(H: torch.Tensor) -> None:
    trusted, distrusted = factorize(H, Scheme()), factorize(H, Scheme(), shrinkage=1e6)
    assert torch.equal(trusted.order, distrusted.order)
    assert float((distrusted.lower - torch.eye(96)).abs().max()) < 1e-2
    assert float((trusted.lower - torch.eye(96)).abs().max()) > 0.1


def test_a_columns_importance_lies_between_its_error_alone_and_made_up_for(H: torch.Tensor) -> None:
    factor = factorize(H, Scheme(damp_percent=1e-6))
    alone = H.diagonal()
    assert bool((factor.importance <= alone * 1.001 + 1e-6 * alone.mean()).all())
    assert bool((factor.importance < 0.9 * alone).any())
    last = factor.order[-1]  # nobody makes up for it, the damping is all that its D has more
    made_up_for = float(alone[last] + 1e-6 * alone.mean())
    assert float(factor.importance[last]) == pytest.approx((float(alone[last]) * made_up_for) ** 0.5, rel=1e-3)


def test_gptq_leaves_its_arguments_as_they_were(W: torch.Tensor, H: torch.Tensor) -> None:
    before = W.clone(), H.clone()
    scheme = Scheme(4, 32)
    gptq(W, factorize(H, scheme), scheme)
    assert torch.equal(W, before[0])
    assert torch.equal(H, before[1])
