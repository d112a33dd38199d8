"""The kinds of change that an adapter makes to a tensor, one class each: what it reads, what it does, what it claims.

    Lora            W + scaling * B @ A                        https://arxiv.org/abs/2106.09685
    Dora            m / |W + scaling * B @ A| * (the same)     https://arxiv.org/abs/2402.09353
    TokenRows       W with some rows replaced                  PEFT's trainable_token_indices
    AddedBias       b + scaling * bias of B                    PEFT's lora_bias

A tensor that is replaced as a whole is no change of the old one but another source: see `edits`. Each class follows
PEFT's order of operations and its casts, so that results are the same bits; where that is impossible it says so.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch

from lf_export.checkpoint.adapter import LoraModule
from lf_export.checkpoint.header import TensorInfo
from lf_export.checkpoint.lora_config import Combine
from lf_export.checkpoint.proof import Claim
from lf_export.checkpoint.reader import read_finite


class Take(Protocol):
    """Gives a [rows, columns] buffer by name; the same name gives the same memory again."""

    def __call__(self, name: str, dtype: torch.dtype, rows: int, columns: int) -> torch.Tensor:
        """The buffer, with whatever is in it."""


@dataclass(frozen=True, slots=True)
class Precision:
    """The dtypes of a tensor's way: sums are `wide`, and each change ends in `weight`, the dtype of the merged model.

    `weight` is the wider of the base's dtype and the asked one; `wide` is float32 at least.
    """

    weight: torch.dtype
    wide: torch.dtype


class Loaded(ABC):
    """A change in memory, ready for blocks of rows in any order."""

    surveys: ClassVar[bool] = False
    """Whether it has to see every block of the tensor before it can change the first."""

    def survey(self, total: torch.Tensor, first: int, take: Take) -> None:  # noqa: B027 (most need none)
        """See the block that begins at row `first`, as it is before this change."""

    @abstractmethod
    def apply(self, total: torch.Tensor, first: int, take: Take) -> None:
        """Change the block in place; [rows, columns] in the wide dtype."""

    @abstractmethod
    def claim(self, claim: Claim) -> None:
        """Say in float64 what becomes of the rows that the claim is about."""


class Change(Protocol):
    """One thing that an adapter does to one tensor."""

    kind: ClassVar[str]

    def load(self, precision: Precision) -> Loaded:
        """Read what it needs.

        Raises:
            InputError: a value is NaN or infinite, or a file cannot be read.
        """


@dataclass(frozen=True)
class Lora:
    """The product of an adapter's A and B, or of several adapters' combined, on one weight.

    `weights` scale the adapters. `linear` combines as PEFT does: A = Σ ±sqrt|w s| Aᵢ, B = Σ sqrt|w s| Bᵢ, which
    has products of one adapter's B with another's A in it. `cat` is the sum of the products itself: the Aᵢ, scaled, one
    below the other, and the Bᵢ side by side. `transposed` is for weights that are stored [in, out].
    """

    kind: ClassVar[str] = "lora"
    modules: tuple[LoraModule, ...]
    weights: tuple[float, ...] = (1.0,)
    combine: Combine = "in-order"
    transposed: bool = False

    def factors(self, wide: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, float]:
        """A, B and their scaling."""
        pairs = [module.factors(wide) for module in self.modules]
        scales = [weight * module.scaling for weight, module in zip(self.weights, self.modules, strict=True)]
        if self.combine == "in-order":
            return *pairs[0], self.modules[0].scaling * self.weights[0]
        if self.combine == "cat":
            # PEFT: A times the weight, then times the scaling
            scaled = [
                a * weight * module.scaling
                for (a, _), weight, module in zip(pairs, self.weights, self.modules, strict=True)
            ]
            return torch.cat(scaled), torch.cat([b for _, b in pairs], dim=1), 1.0
        roots = torch.tensor([math.sqrt(abs(scale)) for scale in scales], dtype=torch.float32)
        signs = torch.tensor([1.0 if scale >= 0 else -1.0 for scale in scales], dtype=torch.float32)
        a = (torch.stack([a for a, _ in pairs]) * (roots * signs).view(-1, 1, 1)).sum(dim=0)
        return a, (torch.stack([b for _, b in pairs]) * roots.view(-1, 1, 1)).sum(dim=0), 1.0

    def load(self, precision: Precision) -> Loaded:
        """Read the factors and combine them."""
        # PEFT rounds an embedding's product before it adds it, and a linear layer's not
        rounds = self.modules[0].embedding and precision.weight != precision.wide
        product = _Product(*self.factors(precision.wide), self.transposed, precision.weight if rounds else None)
        return _LoadedLora(product, precision)


@dataclass(frozen=True)
class Dora:
    """A LoRA whose rows, one for each output, are scaled to trained lengths afterwards.

    Norm and factor are float32 (float64 for a float64 base) like the sum, which is rounded once, after the factor.
    For a weight that is stored [in, out], or an embedding, whose norm PEFT takes over all tokens, a norm spans every
    block: it is added up in float64 in a pass of its own. PEFT adds it up in float32, in another order: results may
    differ from PEFT's in the last bit there.
    """

    kind: ClassVar[str] = "dora"
    module: LoraModule
    weight: float = 1.0
    transposed: bool = False

    def load(self, precision: Precision) -> Loaded:
        """Read the factors and the magnitudes."""
        if self.module.magnitude is None:
            raise ValueError(f"{self.module.name} has no magnitude")
        a, b = self.module.factors(precision.wide)
        product = _Product(a, b, self.module.scaling * self.weight, self.transposed, None)
        magnitude = read_finite(self.module.magnitude, precision.wide)
        return (_DoraByColumns if self.transposed else _DoraByRows)(product, magnitude, precision)


@dataclass(frozen=True)
class TokenRows:
    """Rows of an embedding, or of the output layer, replaced by trained ones; `indices` name them."""

    kind: ClassVar[str] = "tokens"
    rows: TensorInfo
    indices: tuple[int, ...]

    def load(self, precision: Precision) -> Loaded:
        """Read the rows and round them to the weight's dtype."""
        rows = read_finite(self.rows, precision.weight)
        return _LoadedRows(rows.to(precision.wide), torch.tensor(self.indices, dtype=torch.int64), precision)


@dataclass(frozen=True)
class AddedBias:
    """The bias of B, scaled, added to the base's bias."""

    kind: ClassVar[str] = "bias"
    bias: TensorInfo
    scaling: float

    def load(self, precision: Precision) -> Loaded:
        """Read the bias."""
        return _LoadedBias(read_finite(self.bias, precision.wide).mul_(self.scaling), precision)


class _Product:
    """scaling * B @ A, or its transpose, by blocks of the weight's rows."""

    def __init__(
        self, a: torch.Tensor, b: torch.Tensor, scaling: float, transposed: bool, rounds_to: torch.dtype | None
    ) -> None:
        self.a, self.b, self.scaling, self.transposed, self.rounds_to = a, b, scaling, transposed, rounds_to

    def block(self, first: int, rows: int, take: Take) -> torch.Tensor:
        stop = first + rows
        if self.transposed:
            delta = take("delta", self.a.dtype, rows, self.b.shape[0])
            turned = take("turned", self.a.dtype, self.b.shape[0], rows)
            delta.copy_(torch.mm(self.b, self.a[:, first:stop], out=turned).t())
        else:
            delta = take("delta", self.a.dtype, rows, self.a.shape[1])
            torch.mm(self.b[first:stop], self.a, out=delta)
        delta.mul_(self.scaling)
        if self.rounds_to is not None:
            delta.copy_(take("rounded", self.rounds_to, *delta.shape).copy_(delta))
        return delta

    def add_to(self, claim: Claim) -> None:
        eps = torch.finfo(self.a.dtype).eps
        b, a = (self.a.t()[claim.rows], self.b.t()) if self.transposed else (self.b[claim.rows], self.a)
        magnitude = abs(self.scaling) * (b.double().abs() @ a.double().abs())
        claim.want = claim.want + self.scaling * (b.double() @ a.double())
        claim.size = claim.size + magnitude
        # a product of `rank` terms in the wide dtype, its scaling, and the sum
        claim.rounding = claim.rounding + eps * (len(self.a) + 2) * claim.size
        if self.rounds_to is not None:
            claim.rounding = claim.rounding + torch.finfo(self.rounds_to).eps * magnitude


class _LoadedLora(Loaded):
    def __init__(self, product: _Product, precision: Precision) -> None:
        self.product, self.precision = product, precision

    def apply(self, total: torch.Tensor, first: int, take: Take) -> None:
        total.add_(self.product.block(first, len(total), take))

    def claim(self, claim: Claim) -> None:
        self.product.add_to(claim)
        claim.rounded(self.precision.weight)


class _DoraByRows(Loaded):
    """Outputs are rows: each block has all that its norms need."""

    def __init__(self, product: _Product, magnitude: torch.Tensor, precision: Precision) -> None:
        self.product, self.magnitude, self.precision = product, magnitude, precision

    def apply(self, total: torch.Tensor, first: int, take: Take) -> None:
        total.add_(self.product.block(first, len(total), take))
        norms = torch.linalg.norm(total, dim=1)
        total.mul_((self.magnitude[first : first + len(total)] / norms).view(-1, 1))

    def claim(self, claim: Claim) -> None:
        self.product.add_to(claim)
        norms = torch.linalg.norm(claim.want, dim=1, keepdim=True)
        self._scale(claim, self.magnitude[claim.rows].double().view(-1, 1), norms, claim.want.shape[1])
        # what the sum is off moves the norm too, by as much at the most
        moved = torch.linalg.norm(claim.rounding, dim=1, keepdim=True)
        claim.rounding = claim.rounding + claim.size * moved / torch.linalg.norm(claim.want, dim=1, keepdim=True)

    def _scale(self, claim: Claim, magnitude: torch.Tensor, norms: torch.Tensor, terms: int) -> None:
        factor = magnitude / norms
        eps = torch.finfo(self.product.a.dtype).eps
        claim.want, claim.size = claim.want * factor, claim.size * factor.abs()
        # a norm of `terms` squares, its root, the quotient, the product
        claim.rounding = 2 * claim.rounding * factor.abs() + eps * (terms + 4) * claim.size
        claim.rounded(self.precision.weight)


class _DoraByColumns(_DoraByRows):
    """Outputs are columns: their norms are added up over all blocks first, in float64."""

    surveys = True

    def __init__(self, product: _Product, magnitude: torch.Tensor, precision: Precision) -> None:
        super().__init__(product, magnitude, precision)
        self.squares = torch.zeros(len(magnitude), dtype=torch.float64)

    def survey(self, total: torch.Tensor, first: int, take: Take) -> None:
        summed = take("surveyed", total.dtype, *total.shape).copy_(total)
        summed.add_(self.product.block(first, len(total), take))
        self.squares += summed.double().square_().sum(dim=0)

    def apply(self, total: torch.Tensor, first: int, take: Take) -> None:
        total.add_(self.product.block(first, len(total), take))
        total.mul_(self.magnitude / self.squares.sqrt().to(total.dtype))

    def claim(self, claim: Claim) -> None:
        self.product.add_to(claim)
        self._scale(claim, self.magnitude.double(), self.squares.sqrt(), 1)


class _LoadedRows(Loaded):
    def __init__(self, rows: torch.Tensor, indices: torch.Tensor, precision: Precision) -> None:
        self.rows, self.indices, self.precision = rows, indices, precision

    def apply(self, total: torch.Tensor, first: int, take: Take) -> None:  # noqa: ARG002 (the interface)
        self._put(total, self.rows, first)

    def _put(self, target: torch.Tensor, rows: torch.Tensor, first: int) -> None:
        inside = (self.indices >= first) & (self.indices < first + len(target))
        target[self.indices[inside] - first] = rows[inside]

    def claim(self, claim: Claim) -> None:
        rows = self.rows.double()
        self._put(claim.want, rows, claim.first)
        self._put(claim.size, rows.abs(), claim.first)
        self._put(claim.rounding, torch.zeros_like(rows), claim.first)


class _LoadedBias(Loaded):
    def __init__(self, added: torch.Tensor, precision: Precision) -> None:
        self.added, self.precision = added.view(-1, 1), precision

    def apply(self, total: torch.Tensor, first: int, take: Take) -> None:  # noqa: ARG002 (the interface)
        total.add_(self.added[first : first + len(total)])

    def claim(self, claim: Claim) -> None:
        added = self.added[claim.rows].double()
        claim.want, claim.size = claim.want + added, claim.size + added.abs()
        claim.rounding = claim.rounding + 2 * torch.finfo(self.added.dtype).eps * claim.size
        claim.rounded(self.precision.weight)


def kinds(changes: Sequence[Change]) -> list[str]:
    """The kinds of some changes, in order."""
    return [change.kind for change in changes]
