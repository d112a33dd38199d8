"""The merge proof: results against the formula in float64, and how far rounding alone may lead from it."""

from dataclasses import dataclass

import torch

from lf_export.errors import StepError


@dataclass
class Claim:
    """What some rows of a tensor ought to be, [rows, columns] in float64, change by change; they begin at row `first`.

    `size` bounds every partial sum that led here, `rounding` how far the computed rows may be from `want`.
    """

    want: torch.Tensor
    size: torch.Tensor
    rounding: torch.Tensor
    first: int = 0

    @classmethod
    def of(cls, values: torch.Tensor, first: int = 0) -> "Claim":
        """The claim that the rows from `first` are these values, which no rounding has touched."""
        want = values.double()
        return cls(want, want.abs(), torch.zeros_like(want), first)

    @property
    def rows(self) -> slice:
        """Which rows it is about."""
        return slice(self.first, self.first + len(self.want))

    def rounded(self, dtype: torch.dtype) -> None:
        """Allow for one rounding to `dtype`."""
        self.rounding = self.rounding + torch.finfo(dtype).eps * self.size


@dataclass
class Proof:
    """The difference |W' - formula in float64| that came closest to what rounding explains, and where."""

    deviation: float = 0.0
    bound: float = 0.0
    tensor: str = ""
    ratio: float = -1.0

    def check(self, name: str, got: torch.Tensor, claim: Claim) -> None:
        """Compare some rows of a result with the formula.

        Raises:
            StepError: a difference is larger than rounding explains.
        """
        off = (got.double() - claim.want).abs()
        allowed = claim.rounding + torch.finfo(got.dtype).eps * claim.size + torch.finfo(got.dtype).smallest_normal
        ratio = float((off / allowed).max())
        if not ratio <= 1.0:
            raise StepError(
                f"{name}: verification failed: merged weights are {float(off.max()):.3g} away from the formula",
                "the memory or the linear algebra library of this machine gives wrong results",
            )
        if ratio > self.ratio:
            where = int((off / allowed).argmax())
            self.ratio, self.tensor = ratio, name
            self.deviation, self.bound = float(off.view(-1)[where]), float(allowed.view(-1)[where])

    def take(self, other: "Proof") -> None:
        """Keep the other's difference if it comes closer to its bound."""
        if other.ratio > self.ratio:
            self.deviation, self.bound = other.deviation, other.bound
            self.tensor, self.ratio = other.tensor, other.ratio
