"""Where a scale of an input is undone: a norm's weight, or the rows and the bias of the linear before."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Fold:
    """What makes the n channels of an input, element by element.

    The input is multiplied by 1 / s and the weights that read it by s. The first is done by dividing elements of the
    maker; channels with the same maker share their scale.

    Attributes:
        made_by: which element makes each channel, int64 [n].
        elements: how many the maker has.
        held: the maker's stored tensor, fp32 [elements]: a norm's weight or a linear's bias; None where nothing is
            stored but rows that are yet to be quantized.
        dtype: in which it is stored.
        offset: what the maker adds to it before it multiplies (a norm of Gemma: 1).
    """

    made_by: torch.Tensor
    elements: int
    held: torch.Tensor | None = None
    dtype: torch.dtype = torch.float32
    offset: float = 0.0

    def shared(self, channels: torch.Tensor) -> torch.Tensor:
        """The mean of values of the channels over those with the same maker, [elements]; 1 for makers of none."""
        totals = channels.new_zeros(self.elements).index_add_(0, self.made_by, channels)
        counts = channels.new_zeros(self.elements).index_add_(0, self.made_by, torch.ones_like(channels))
        return torch.where(counts > 0, totals / counts.clamp(min=1), 1.0)

    def divide(self, divisors: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Divide the maker's elements.

        Storing rounds. So the divisors are made to fit what is stored, not the other way round: the weights that read
        the input are multiplied by exactly what the stored tensor was divided by, and nothing of the model changes.

        Args:
            divisors: above zero, [elements].

        Returns:
            The tensor to store (None where nothing is), and the divisors that it stands for, fp32 [elements].
        """
        if self.held is None:
            return None, divisors
        whole = self.held + self.offset
        stored = (whole / divisors - self.offset).to(self.dtype)
        exact = whole / (stored.float() + self.offset)
        # a channel whose element is zero is zero whatever it is divided by; one that vanished or overflowed stays
        lost = ~torch.isfinite(exact) | (exact <= 0)
        kept = torch.where(lost & (whole != 0), self.held.to(self.dtype), stored)
        return kept, torch.where(whole == 0, divisors, torch.where(lost, 1.0, exact))
