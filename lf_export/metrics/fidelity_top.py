"""How far a server's next-token distributions are from the baseline's, when it shows only its likeliest tokens.

What cannot be known is not guessed: the KL is a lower bound, a margin that lies outside of what was shown is NaN.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lf_export.metrics.fidelity import Floats
from lf_export.metrics.kept import Kept

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


def compare_top(baseline: Kept, shown: Sequence[Top]) -> TopFidelity:
    """Compare what stayed of the baseline's distributions with the likeliest tokens that the artifact showed.

    Shown tokens that the baseline has not, or that did not stay of it, count among all others.
    """
    rows = baseline.rows()
    tops = [int(ids[0]) for ids, _ in rows]
    return TopFidelity(
        kl_at_least=np.array(
            [
                _kl(dict(zip(ids.tolist(), logprobs.tolist(), strict=True)), *top)
                for (ids, logprobs), top in zip(rows, shown, strict=True)
            ],
            np.float64,
        ),
        same_top1=np.array([ids[0] == top for top, (ids, _) in zip(tops, shown, strict=True)], np.bool_),
        margin=np.array([_margin(top, *each) for top, each in zip(tops, shown, strict=True)], np.float64),
    )


def concatenate_top(parts: Sequence[TopFidelity]) -> TopFidelity:
    """The tokens of several answers as one; there is one answer at least."""
    return TopFidelity(
        kl_at_least=np.concatenate([part.kl_at_least for part in parts]),
        same_top1=np.concatenate([part.same_top1 for part in parts]),
        margin=np.concatenate([part.margin for part in parts]),
    )


def _kl(baseline: Mapping[int, float], ids: Sequence[int], logprobs: Sequence[float]) -> float:
    known = [place for place, index in enumerate(ids) if index in baseline]
    log_p = np.array([baseline[ids[place]] for place in known], np.float64)
    log_q = np.array([logprobs[place] for place in known], np.float64)
    p = np.exp(log_p)
    rest_p = max(1.0 - float(p.sum()), 0.0)
    # A rest of the artifact that is taken too large makes the bound smaller, never wrong.
    rest_q = max(1.0 - float(np.exp(log_q).sum()), 0.0) + _ROUNDING
    rest = rest_p * (np.log(rest_p) - np.log(rest_q)) if rest_p > 0 else 0.0
    return max(float((p * (log_p - log_q)).sum() + rest), 0.0)


def _margin(top: int, ids: Sequence[int], logprobs: Sequence[float]) -> float:
    if top not in ids:
        return float("nan")
    others = [value for index, value in zip(ids, logprobs, strict=True) if index != top]
    own = next(value for index, value in zip(ids, logprobs, strict=True) if index == top)
    return own - max(others) if others else float("nan")
