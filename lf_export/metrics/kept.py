"""The baseline's next-token distributions, small enough to keep on disk, and an artifact's held against them.

Of each distribution stay the likeliest tokens, as logits less their log-sum-exp, and what all others have together. An
artifact gives its logits whole, so a KL from this is a lower bound, and how far below the truth it may lie is known.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from lf_export.errors import StepError
from lf_export.metrics.fidelity import Floats, TokenFidelity, lead, log_softmax

# As many tokens stay as it takes until the others have less than this together …
LEFT_OUT = 1e-5
# … and this many at the most: 32 KiB a distribution. Fewer than the least would save nothing.
MOST_TOKENS = 4096
LEAST_TOKENS = 64


@dataclass(frozen=True)
class Kept:
    """Distributions over a vocabulary of `width` tokens, one for each compared token.

    Attributes:
        width: the baseline's vocabulary.
        counts: how many tokens stay of each distribution, int32 [tokens].
        ids: these tokens, the likeliest first, one distribution after the other, int32 [sum of counts].
        logprobs: their log-probabilities in nats, float32 [sum of counts].
        rest: the log-probability of all others together, -inf where there are none, [tokens].
        rest_plogp: the sum of p log p over these others, [tokens].
    """

    width: int
    counts: npt.NDArray[np.int32]
    ids: npt.NDArray[np.int32]
    logprobs: npt.NDArray[np.float32]
    rest: Floats
    rest_plogp: Floats

    def rows(self) -> list[tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]]:
        """The ids and log-probabilities of each distribution."""
        ends = np.cumsum(self.counts)[:-1]
        return list(zip(np.split(self.ids, ends), np.split(self.logprobs, ends), strict=True))

    def save(self, path: Path) -> None:
        """Write it to the file `path`."""
        path.write_bytes(save({**self._arrays(), "width": np.array([self.width], np.int64)}))

    @classmethod
    def load(cls, path: Path) -> "Kept":
        """Read what `save` wrote.

        Raises:
            StepError: the file is not there, or is none of these.
        """
        try:
            parts: dict[str, Any] = load_file(path)
            found = cls(width=int(parts.pop("width")[0]), **parts)
        except (OSError, SafetensorError, KeyError, TypeError, IndexError) as error:
            raise StepError(f"{path}: the baseline's distributions cannot be read: {error}") from error
        tokens, stored = found.counts.shape, (int(found.counts.sum()),)
        if (found.ids.shape, found.logprobs.shape) != (stored, stored) or found.rest.shape != tokens:
            raise StepError(f"{path}: the baseline's distributions do not fit together")
        return found

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        names = ("counts", "ids", "logprobs", "rest", "rest_plogp")
        return {name: np.ascontiguousarray(getattr(self, name)) for name in names}


def keep(logits: npt.NDArray[np.float32]) -> Kept:
    """What stays of finite logits [tokens, vocab]; a vocabulary of `LEAST_TOKENS` or fewer stays whole."""
    width = logits.shape[1]
    most = min(width, MOST_TOKENS)
    counts, ids, logprobs, rest, plogp = [], [], [], [], []
    for row in log_softmax(logits):
        near = np.flatnonzero(row >= np.partition(row, width - most)[width - most])
        order = near[np.argsort(-row[near], kind="stable")][:most]  # of equal ones the first, as argmax has it
        others = 1.0 - np.cumsum(np.exp(row[order], dtype=np.float64))
        count = min(max(int((others >= LEFT_OUT).sum()) + 1, LEAST_TOKENS), most)
        ids.append(order[:count])
        logprobs.append(row[order[:count]])
        counts.append(count)
        left = np.delete(row, order[:count]).astype(np.float64)
        rest.append(_log_sum(left))
        plogp.append(float((np.exp(left) * left).sum()))
    return Kept(
        width=width,
        counts=np.array(counts, np.int32),
        ids=np.concatenate([*ids, np.empty(0, np.int64)]).astype(np.int32),
        logprobs=np.concatenate([*logprobs, np.empty(0, np.float32)]),
        rest=np.array(rest, np.float64),
        rest_plogp=np.array(plogp, np.float64),
    )


def compare_kept(baseline: Kept, artifact: npt.NDArray[np.float32], reference: Sequence[int]) -> TokenFidelity:
    """Compare an artifact's logits [tokens, vocab] with the baseline; both predict the tokens `reference`.

    The KL counts the tokens that did not stay as one: by the data processing inequality it is never more than over the
    whole vocabulary. `TokenFidelity.kl_room` bounds what is missing: with R the other tokens, P and Q their
    probabilities, it is `Σ_R p log(p/q) - P log(P/Q) ≤ Σ_R p log p - P log P + P log Q - P min_R log q`.

    A file format may pad the vocabulary: only columns that both have are compared. Where the artifact's is the
    narrower one, what it lacks among the baseline's likeliest tokens does not count.

    Raises:
        StepError: it lacks every token that the baseline prefers at some place.
    """
    width = min(baseline.width, artifact.shape[1])
    q = log_softmax(artifact[:, :width])
    tops, kl, room, margins = [], [], [], []
    for number, ((ids, logprobs), log_q) in enumerate(zip(baseline.rows(), q, strict=True)):
        known = ids < width
        if not known.any():
            raise StepError(f"the vocabulary of {width} tokens lacks those that the baseline prefers")
        chosen, p = ids[known], logprobs[known].astype(np.float64)
        rest, plogp = float(baseline.rest[number]), float(baseline.rest_plogp[number])
        if not known.all():
            lost = float(np.exp(logprobs[~known], dtype=np.float64).sum())
            p, rest, plogp = _scaled(p, rest, plogp, float(np.log1p(-min(lost, 1 - 1e-9))))
        other_q = log_q.astype(np.float64)
        other_q[chosen] = np.nan
        other_q = other_q[~np.isnan(other_q)]
        mass, together = np.exp(rest), _log_sum(other_q)
        at_least = float((np.exp(p) * (p - log_q[chosen])).sum())
        missing = 0.0
        if mass > 0 and len(other_q):
            at_least += mass * (rest - together)
            missing = max(plogp - mass * rest + mass * (together - float(other_q.min())), 0.0)
        kl.append(max(at_least, 0.0))
        room.append(missing)
        tops.append(int(chosen[0]))
        margins.append(float(p[0] - p[1]) if len(p) > 1 else float("nan"))
    top, rows = np.array(tops, np.intp), np.arange(len(reference))
    return TokenFidelity(
        kl=np.array(kl, np.float64),
        same_top1=q.argmax(axis=-1) == top,
        margin=lead(q, top),
        baseline_margin=np.array(margins, np.float64),
        nll=-q[rows, np.asarray(reference, dtype=np.int64)].astype(np.float64),
        kl_room=np.array(room, np.float64),
    )


def _scaled(p: Floats, rest: float, plogp: float, shared: float) -> tuple[Floats, float, float]:
    """Log-probabilities, and those of the rest, given that the token is one of those with log-probability `shared`."""
    mass = float(np.exp(rest))
    return p - shared, rest - shared, (plogp - mass * shared) / float(np.exp(shared))


def _log_sum(log_probabilities: Floats) -> float:
    """The logarithm of the sum of their exponentials; -inf of none."""
    if not len(log_probabilities):
        return float("-inf")
    largest = float(log_probabilities.max())
    return largest + float(np.log(np.exp(log_probabilities - largest).sum()))
