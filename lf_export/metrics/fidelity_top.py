"""How far a server's next-token distributions are from the baseline's, when it shows only its likeliest tokens.

What cannot be known is not guessed: the KL is a lower bound, a margin that lies outside of what was shown is NaN.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lf_export.metrics.fidelity import Floats, log_softmax

Top = tuple[Sequence[int], Sequence[float]]
"""Token ids and their log-probabilities, the likeliest first."""

# Log-probabilities come as float32 in decimal: what the shown tokens leave over is known to about this.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class TopFidelity:
    """One value for each compared token, in the order of the tokens.

    Attributes:
        kl_at_least: KL(baseline ‖ artifact) in nats over the shown tokens and all others as one: by the data
            processing inequality never more than that over the whole vocabulary.
        same_top1: whether both prefer the same token: exact.
        margin: the artifact's log-probability of the baseline's preferred token, less that of the best other token;
            exact where that token was shown, else NaN.
    """

    kl_at_least: Floats
    same_top1: npt.NDArray[np.bool_]
    margin: Floats


def compare_top(baseline: npt.NDArray[np.float32], shown: Sequence[Top]) -> TopFidelity:
    """Compare logits [tokens, vocab] of the baseline with the likeliest tokens that the artifact showed at each place.

    A file format may pad the vocabulary: shown tokens that the baseline has not count among all others.
    """
    log_p = log_softmax(baseline).astype(np.float64)
    tops = log_p.argmax(axis=-1)
    return TopFidelity(
        kl_at_least=np.array([_kl(row, *top) for row, top in zip(log_p, shown, strict=True)], np.float64),
        same_top1=np.array([ids[0] == top for top, (ids, _) in zip(tops, shown, strict=True)], np.bool_),
        margin=np.array([_margin(int(top), *each) for top, each in zip(tops, shown, strict=True)], np.float64),
    )


def concatenate_top(parts: Sequence[TopFidelity]) -> TopFidelity:
    """The tokens of several answers as one; there is one answer at least."""
    return TopFidelity(
        kl_at_least=np.concatenate([part.kl_at_least for part in parts]),
        same_top1=np.concatenate([part.same_top1 for part in parts]),
        margin=np.concatenate([part.margin for part in parts]),
    )


def _kl(log_p: Floats, ids: Sequence[int], logprobs: Sequence[float]) -> float:
    known = [place for place, index in enumerate(ids) if index < len(log_p)]
    chosen = np.array([ids[place] for place in known], np.int64)
    log_q = np.array([logprobs[place] for place in known], np.float64)
    p = np.exp(log_p[chosen])
    rest_p = max(1.0 - float(p.sum()), 0.0)
    # A rest of the artifact that is taken too large makes the bound smaller, never wrong.
    rest_q = max(1.0 - float(np.exp(log_q).sum()), 0.0) + _ROUNDING
    rest = rest_p * (np.log(rest_p) - np.log(rest_q)) if rest_p > 0 else 0.0
    return max(float((p * (log_p[chosen] - log_q)).sum() + rest), 0.0)


def _margin(top: int, ids: Sequence[int], logprobs: Sequence[float]) -> float:
    if top not in ids:
        return float("nan")
    others = [value for index, value in zip(ids, logprobs, strict=True) if index != top]
    own = next(value for index, value in zip(ids, logprobs, strict=True) if index == top)
    return own - max(others) if others else float("nan")
