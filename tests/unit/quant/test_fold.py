import torch

from lf_export.quant.fold import Fold


def test_divisors_are_made_to_fit_what_the_stored_dtype_can_hold() -> None:
    held = torch.tensor([1.0, 0.3125, -2.5])
    stored, divisors = Fold(torch.arange(3), 3, held, torch.bfloat16).divide(torch.full((3,), 1.1))
    assert stored is not None
    assert not torch.equal(divisors, torch.full((3,), 1.1))
    assert torch.equal(held / divisors, stored.float())


def test_a_maker_that_stores_nothing_takes_any_divisor() -> None:
    wanted = torch.tensor([0.3, 1.7])
    stored, divisors = Fold(torch.arange(2), 2).divide(wanted)
    assert stored is None
    assert torch.equal(divisors, wanted)


def test_an_element_that_would_vanish_or_overflow_stays_as_it_is() -> None:
    held = torch.tensor([6e-8, 60000.0, 1.0])
    stored, divisors = Fold(torch.arange(3), 3, held.half().float(), torch.float16).divide(torch.tensor([9.0, 0.1, 2]))
    assert stored is not None
    assert torch.equal(stored[:2], held.half()[:2])
    assert divisors.tolist() == [1.0, 1.0, 2.0]


def test_an_element_of_zero_stays_zero_under_the_divisor_that_was_asked_for() -> None:
    stored, divisors = Fold(torch.arange(2), 2, torch.tensor([0.0, -1.0]), torch.bfloat16, 1.0).divide(
        torch.tensor([3.0, 5.0])
    )
    assert stored is not None
    assert stored[1] == -1.0  # one that is added to it makes zero
    assert divisors[1] == 5.0


def test_channels_of_one_maker_share_their_mean() -> None:
    fold = Fold(torch.tensor([2, 2, 3, 3]), 5)
    assert fold.shared(torch.tensor([1.0, 3.0, 5.0, 5.0])).tolist() == [1.0, 1.0, 2.0, 5.0, 1.0]
