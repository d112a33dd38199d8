"""Calibration samples of random tokens, and a visitor that keeps what it saw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lf_export.quant.moments import Moments
from lf_export.walk.view import LayerView


@dataclass(frozen=True)
class RandomSample:
    """Token ids and their classes."""

    ids: npt.NDArray[np.int32]
    classes: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class RandomData:
    """Samples, weights and a digest, as a calibration set has them."""

    samples: Sequence[RandomSample]
    weights: Mapping[int, float] = field(default_factory=dict)
    digest: str = "0" * 64


def random_data(lengths: Sequence[int], *, seed: int = 0, vocab: int = 320, weights: Any = None) -> RandomData:
    """Samples of the given lengths; the second half of each is of class 3 (inside a call)."""
    rng = np.random.default_rng(seed)
    samples = []
    for length in lengths:
        classes = np.zeros(length, dtype=np.uint8)
        classes[length // 2 :] = 3
        samples.append(RandomSample(rng.integers(0, vocab, size=length).astype(np.int32), classes))
    return RandomData(samples, weights or {})


def moments_of(X: torch.Tensor) -> Moments:
    """The moments of rows [tokens, width]."""
    moments = Moments.zeros(X.shape[1])
    moments.add(X)
    return moments


@dataclass
class Keeper:
    """A visitor that keeps copies of all that it was shown."""

    needs_moments: bool = True
    prefixes: list[str] = field(default_factory=list)
    H: list[dict[str, torch.Tensor]] = field(default_factory=list)
    counts: list[dict[str, int]] = field(default_factory=list)
    shared: list[int] = field(default_factory=list)
    heldout: list[dict[str, torch.Tensor]] = field(default_factory=list)
    weights: list[dict[str, torch.Tensor]] = field(default_factory=list)

    def layer(self, view: LayerView) -> None:
        """Keep copies."""
        self.prefixes.append(view.prefix)
        self.H.append({name: moments.H.clone() for name, moments in view.moments.items()})
        self.counts.append({name: moments.count for name, moments in view.moments.items()})
        self.shared.append(len({id(moments) for moments in view.moments.values()}))
        self.heldout.append({name: rows.X.clone() for name, rows in view.heldout.items()})
        self.weights.append({name: tensor.clone() for name, tensor in view.weights.items()})
