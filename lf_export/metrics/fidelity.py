"""How far an artifact's next-token distributions are from the baseline's, token by token, by token class."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TokenFidelity:
    """One value for each compared token, in the order of the tokens.

    Attributes:
        kl: KL(baseline ‖ artifact) in nats, over the whole vocabulary, or a lower bound of it.
        same_top1: whether both prefer the same token.
        margin: the artifact's log-probability of the baseline's preferred token, less that of the best other token,
            in nats; negative where the preference flipped.
        baseline_margin: the baseline's own log-probability of that token, less that of its best other one, in nats.
        nll: the artifact's negative log-likelihood of the reference token, in nats.
        kl_room: by how much `kl` may be too small, in nats.
    """

    kl: Floats
    same_top1: npt.NDArray[np.bool_]
    margin: Floats
    baseline_margin: Floats
    nll: Floats
    kl_room: Floats


def log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Log-probabilities of logits [tokens, vocab], in float32 after the largest is taken off."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    total = np.log(np.exp(shifted).sum(axis=-1, keepdims=True, dtype=np.float64))
    return np.asarray(shifted - total, dtype=np.float32)


def compare_logits(
    baseline: npt.NDArray[np.float32], artifact: npt.NDArray[np.float32], reference: Sequence[int]
) -> TokenFidelity:
    """Compare logits [tokens, vocab] that predict the tokens `reference`.

    A file format may pad the vocabulary: only the columns that both have are compared.
    """
    width = min(baseline.shape[1], artifact.shape[1])
    p = log_softmax(baseline[:, :width])
    q = log_softmax(artifact[:, :width])
    rows = np.arange(len(reference))
    top = p.argmax(axis=-1)
    return TokenFidelity(
        kl=np.maximum((np.exp(p, dtype=np.float64) * (p.astype(np.float64) - q)).sum(axis=-1), 0.0),
        same_top1=q.argmax(axis=-1) == top,
        margin=lead(q, top),
        baseline_margin=lead(p, top),
        nll=-q[rows, np.asarray(reference, dtype=np.int64)].astype(np.float64),
        kl_room=np.zeros(len(reference), np.float64),
    )


def lead(log_probabilities: npt.NDArray[np.float32], chosen: npt.NDArray[np.intp]) -> Floats:
    """How far each row's chosen column is above its best other one, in nats, [tokens]."""
    rows = np.arange(len(chosen))
    others = log_probabilities.copy()
    others[rows, chosen] = -np.inf
    above: Floats = log_probabilities[rows, chosen].astype(np.float64) - others.max(axis=-1)
    return above


def nll(logits: npt.NDArray[np.float32], reference: Sequence[int]) -> Floats:
    """The negative log-likelihood of each token of `reference` under logits [tokens, vocab], in nats."""
    rows = log_softmax(logits)
    picked: Floats = rows[np.arange(len(reference)), np.asarray(reference, dtype=np.int64)].astype(np.float64)
    return np.negative(picked)


def concatenate(parts: Sequence[TokenFidelity]) -> TokenFidelity:
    """The tokens of several answers as one."""
    if not parts:
        empty = np.empty(0, np.float64)
        return TokenFidelity(empty, np.empty(0, np.bool_), empty, empty, empty, empty)
    return TokenFidelity(
        kl=np.concatenate([part.kl for part in parts]),
        same_top1=np.concatenate([part.same_top1 for part in parts]),
        margin=np.concatenate([part.margin for part in parts]),
        baseline_margin=np.concatenate([part.baseline_margin for part in parts]),
        nll=np.concatenate([part.nll for part in parts]),
        kl_room=np.concatenate([part.kl_room for part in parts]),
    )


def perplexity(nlls: Floats) -> float:
    """Exp of the mean negative log-likelihood; NaN where there are no tokens."""
    return float(np.exp(nlls.mean())) if len(nlls) else float("nan")
