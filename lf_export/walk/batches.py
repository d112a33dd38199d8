"""How calibration samples pass through a layer: packed by length, the padding outside of everything that counts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from lf_export.errors import InputError

# One sample in so many is held out of the moments, at least one where there are two.
_HELDOUT_EVERY = 16

# Held-out rows that judge a layer. GPTQ and rounding are compared on the same rows and over all outputs, so few do.
_HELDOUT_ROWS = 128

# Token classes from this one on are inside a function call: calibration, which is above the walk, numbers them.
_CALL = 3


class Sample(Protocol):
    """One conversation: token ids (int32) and a token class (uint8) for each."""

    @property
    def ids(self) -> npt.NDArray[np.int32]:
        """Token ids, [t]."""

    @property
    def classes(self) -> npt.NDArray[np.uint8]:
        """Token classes, [t]."""


class CalibrationData(Protocol):
    """Samples and the weight in H of each token class (1 where a class is not named)."""

    @property
    def samples(self) -> Sequence[Sample]:
        """The conversations."""

    @property
    def weights(self) -> Mapping[Any, float]:
        """Token class → weight, at least 0."""


@dataclass(frozen=True)
class Batch:
    """Samples of like length that run together, padded on the right.

    Causal attention keeps padding on the right from touching any token before it, so no mask is needed.

    Attributes:
        tokens: where the batch's tokens lie in the walk's buffer; samples one after the other.
        shape: (samples, longest).
        rows: the place of each token in the padded batch, flattened, [t].
        fit: places of the tokens that enter the moments, and their weights (None: all one).
        heldout: places of the held-out rows, and the square roots of their weights.
    """

    tokens: slice
    shape: tuple[int, int]
    rows: torch.Tensor
    fit: tuple[torch.Tensor, torch.Tensor | None]
    heldout: tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Judged:
    """A held-out sample as a judge of whole layers.

    Attributes:
        tokens: where its tokens lie in the walk's buffer.
        rows: the positions in it that count, [r].
        weights: what each counts, [r] fp32.
    """

    tokens: slice
    rows: torch.Tensor
    weights: torch.Tensor


@dataclass(frozen=True)
class Plan:
    """All batches, and the token ids in the order of the walk's buffer, [total] int64.

    Attributes:
        ids: of every token.
        batches: that run one after the other.
        heldout_samples: samples that no moment sees, by their place in the set.
        judged: the same samples with the positions that predict a token inside a function call, or, where there is
            none, with those that have a weight.
    """

    ids: torch.Tensor
    batches: tuple[Batch, ...]
    heldout_samples: tuple[int, ...]
    judged: tuple[Judged, ...] = ()


def plan_batches(data: CalibrationData, batch_tokens: int, vocab_size: int, *, share: float = 1.0) -> Plan:
    """Sort samples by length and pack them into batches of at most `batch_tokens` tokens, padding included.

    A sample that is longer than `batch_tokens` runs alone.

    Args:
        data: the samples.
        batch_tokens: of a batch, padding included.
        vocab_size: what ids must be below.
        share: of the tokens, what a linear sees that sees the fewest; so many more rows are held out.

    Raises:
        InputError: there is no sample, a sample is empty, or an id is outside the vocabulary.
    """
    samples = data.samples
    _check(samples, vocab_size)
    lengths = np.array([len(sample.ids) for sample in samples])
    heldout = _heldout(len(samples))
    kept_rows = _heldout_rows(data, heldout, ceil(_HELDOUT_ROWS / share))
    order = np.argsort(lengths, kind="stable")
    batches, start, first = [], 0, 0
    starts: dict[int, int] = {}
    while first < len(order):
        stop = first + 1
        while stop < len(order) and (stop + 1 - first) * lengths[order[stop]] <= batch_tokens:
            stop += 1
        members = [int(i) for i in order[first:stop]]
        tokens = int(lengths[members].sum())
        starts |= zip(members, (start + lengths[members].cumsum() - lengths[members]).tolist(), strict=True)
        batches.append(_batch(data, members, slice(start, start + tokens), kept_rows))
        start += tokens
        first = stop
    ids = np.concatenate([np.asarray(samples[int(i)].ids, dtype=np.int64) for i in order])
    return Plan(torch.from_numpy(ids), tuple(batches), heldout, _judged(data, heldout, starts))


def _check(samples: Sequence[Sample], vocab_size: int) -> None:
    if not samples:
        raise InputError("calibration: no samples, expected at least one conversation")
    problems = []
    for i, sample in enumerate(samples):
        if len(sample.ids) == 0:
            problems.append(f"calibration: sample {i} has no tokens")
        elif int(sample.ids.min()) < 0 or int(sample.ids.max()) >= vocab_size:
            worst = int(sample.ids.max())
            problems.append(
                f"calibration: sample {i} has token id {worst}, the model's vocabulary ends at {vocab_size}"
            )
    if problems:
        raise InputError.of(problems, "render the samples with this model's own tokenizer")


def _heldout(count: int) -> tuple[int, ...]:
    """The samples that are held out, spread evenly; none where there is only one."""
    if count < 2:
        return ()
    held = max(1, count // _HELDOUT_EVERY)
    return tuple(int((i + 0.5) * count / held) for i in range(held))


def _weights(data: CalibrationData, sample: Sample) -> npt.NDArray[np.float32]:
    table = np.ones(256, dtype=np.float32)
    for token_class, weight in data.weights.items():
        table[int(token_class)] = weight
    return table[sample.classes]


def _heldout_rows(data: CalibrationData, heldout: tuple[int, ...], limit: int) -> dict[int, npt.NDArray[np.int64]]:
    """The positions in each held-out sample that judge: those with a weight, thinned evenly to the limit."""
    places = [(i, position) for i in heldout for position in np.flatnonzero(_weights(data, data.samples[i]) > 0)]
    if len(places) > limit:
        places = [places[i * len(places) // limit] for i in range(limit)]
    return {i: np.array([p for sample, p in places if sample == i], dtype=np.int64) for i in heldout}


def _judged(data: CalibrationData, heldout: tuple[int, ...], starts: Mapping[int, int]) -> tuple[Judged, ...]:
    """The held-out samples with the rows that predict a call token, each with the weight of that token."""
    found = []
    for calls in (True, False):
        for i in heldout:
            sample = data.samples[i]
            weights = _weights(data, sample)
            if calls:
                weights = np.append(np.where(sample.classes >= _CALL, weights, 0)[1:], np.float32(0))
            rows = np.flatnonzero(weights > 0)
            if len(rows):
                tokens = slice(starts[i], starts[i] + len(sample.ids))
                found.append(Judged(tokens, torch.from_numpy(rows), torch.from_numpy(weights[rows])))
        if found:
            break
    return tuple(found)


def _batch(
    data: CalibrationData, members: list[int], tokens: slice, heldout_rows: dict[int, npt.NDArray[np.int64]]
) -> Batch:
    longest = max(len(data.samples[i].ids) for i in members)
    rows, fit, fit_weights, held, held_roots = [], [], [], [], []
    for place, i in enumerate(members):
        sample = data.samples[i]
        weights = _weights(data, sample)
        offset = place * longest
        rows.append(offset + np.arange(len(sample.ids)))
        if i in heldout_rows:
            held.append(offset + heldout_rows[i])
            held_roots.append(np.sqrt(weights[heldout_rows[i]]))
        else:
            counted = np.flatnonzero(weights > 0)
            fit.append(offset + counted)
            fit_weights.append(weights[counted])
    weights = _joined(fit_weights, np.float32)
    uniform = bool((weights == 1).all())
    return Batch(
        tokens=tokens,
        shape=(len(members), longest),
        rows=torch.from_numpy(_joined(rows, np.int64)),
        fit=(torch.from_numpy(_joined(fit, np.int64)), None if uniform else torch.from_numpy(weights)),
        heldout=(torch.from_numpy(_joined(held, np.int64)), torch.from_numpy(_joined(held_roots, np.float32))),
    )


def _joined(arrays: list[Any], dtype: Any) -> Any:
    return np.concatenate(arrays).astype(dtype) if arrays else np.zeros(0, dtype=dtype)
