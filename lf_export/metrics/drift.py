"""How far an artifact's greedy answers in a chat leave the baseline's.

After the first token that differs two greedy answers go their own ways, both perhaps well: drift is no loss of quality,
it says how often and how soon a user would see another text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from statistics import median

import numpy as np

from lf_export.stats import cluster_bootstrap


@dataclass(frozen=True)
class Drift:
    """The artifact's answers against the baseline's, both greedy and to the same limit of tokens.

    Attributes:
        answers: how many were compared.
        identical: how many are the same, token by token.
        agreed: the mean share of an answer before its first token that differs, of the longer of the two.
        agreed_lower, agreed_upper: 95 %, a bootstrap over answers; nan for fewer than two.
        first_difference: the median place of the first token that differs, over the answers that do; None if none does.
        farthest: the names of those that part, the earliest first.
    """

    answers: int
    identical: int
    agreed: float
    agreed_lower: float
    agreed_upper: float
    first_difference: float | None
    farthest: tuple[str, ...]


def drift(baseline: Mapping[str, Sequence[int]], artifact: Mapping[str, Sequence[int]], seed: int = 0) -> Drift | None:
    """Compare token ids by the names of their conversations; None where no conversation is in both."""
    names = [name for name in baseline if name in artifact]
    if not names:
        return None
    common = {name: _common(baseline[name], artifact[name]) for name in names}
    longest = {name: max(len(baseline[name]), len(artifact[name])) for name in names}
    parted = sorted((name for name in names if common[name] < longest[name]), key=lambda name: (common[name], name))
    shares = [common[name] / longest[name] if longest[name] else 1.0 for name in names]
    interval = cluster_bootstrap([np.array([share]) for share in shares], seed=seed)
    return Drift(
        answers=len(names),
        identical=len(names) - len(parted),
        agreed=interval.estimate,
        agreed_lower=interval.lower,
        agreed_upper=interval.upper,
        first_difference=float(median(common[name] for name in parted)) if parted else None,
        farthest=tuple(parted),
    )


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
