"""Paired proportions: the same items answered by a baseline and by a candidate, each right or wrong.

The loss is p_base - p_cand: positive when the candidate is worse. Only the flips carry evidence about it: `lost` items
(baseline right, candidate wrong) and `gained` items (the other way round). Bootstrap and Wald intervals collapse to
[0, 0] when nothing flips; Tango's score interval does not, which is why the gate uses it.

Items that share something, such as the functions that they show, flip together: they carry less evidence than as many
that share nothing. `PairedCounts.design_effect` says how much less; every bound here counts n / design_effect items.

Sources: T. Tango, "Equivalence test and confidence interval for the difference in proportions for the
paired-sample design", Statistics in Medicine 17 (1998), 891-908; Q. McNemar, Psychometrika 12 (1947), 153-157; the
design effect: J. N. K. Rao and A. J. Scott, "A simple method for the analysis of clustered binary data", Biometrics 48
(1992), 577-585.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

_NORMAL = NormalDist()
_HALVINGS = 60  # an interval of width 2 halved 60 times is below the spacing of floats near 1
# What is assumed of items that share their functions, and how much it weighs. On SmolLM2's quantized artifacts the
# correlation of flips was .03 and less; benchmarks/gate.py shows what the two do to false accepts.
_USUAL_CORRELATION = 0.1
_USUAL_WEIGHT = 10
_MOST_ITEMS = 1 << 30  # beyond this no suite can answer the question


@dataclass(frozen=True)
class PairedCounts:
    """How often baseline and candidate were right on the same `n` items.

    `both` right; `lost`: only the baseline right; `gained`: only the candidate right; `neither` right.
    `design_effect`: how many times larger the variance of the loss is than that of as many independent items.

    Raises:
        ValueError: a count is negative, the four do not add up to `n`, or the design effect is below 1.
    """

    n: int
    both: int
    lost: int
    gained: int
    neither: int
    design_effect: float = 1.0

    def __post_init__(self) -> None:
        if not self.design_effect >= 1:
            raise ValueError(f"a design effect is 1 or more, not {self.design_effect}")
        parts = (self.both, self.lost, self.gained, self.neither)
        if min(parts) < 0 or sum(parts) != self.n:
            raise ValueError(f"counts {parts} do not add up to n = {self.n}")

    @property
    def loss(self) -> float:
        """The observed loss, (lost - gained) / n; nan for no items."""
        return (self.lost - self.gained) / self.n if self.n else math.nan

    @property
    def discordance(self) -> float:
        """The share of items that flipped either way; nan for no items."""
        return (self.lost + self.gained) / self.n if self.n else math.nan

    @property
    def baseline_rate(self) -> float:
        """The share of items that the baseline got right; nan for no items."""
        return (self.both + self.lost) / self.n if self.n else math.nan

    @property
    def candidate_rate(self) -> float:
        """The share of items that the candidate got right; nan for no items."""
        return (self.both + self.gained) / self.n if self.n else math.nan

    def exchanged(self) -> "PairedCounts":
        """The same items with baseline and candidate in each other's place."""
        return PairedCounts(self.n, self.both, self.gained, self.lost, self.neither, self.design_effect)


def paired(
    baseline: Sequence[bool], candidate: Sequence[bool], clusters: Sequence[Hashable] | None = None
) -> PairedCounts:
    """Count agreements and flips between two verdicts on the same items, in the same order.

    Args:
        baseline: whether the baseline was right.
        candidate: whether the candidate was right.
        clusters: what each item shares with others; None for items that share nothing.

    Raises:
        ValueError: they differ in length.
    """
    both = lost = gained = neither = 0
    for base, cand in zip(baseline, candidate, strict=True):
        if base and cand:
            both += 1
        elif base:
            lost += 1
        elif cand:
            gained += 1
        else:
            neither += 1
    effect = 1.0 if clusters is None else _design_effect(baseline, candidate, clusters)
    return PairedCounts(len(baseline), both, lost, gained, neither, effect)


def score_statistic(counts: PairedCounts, loss: float) -> float:
    """Tango's score statistic for the hypothesis that the true loss equals `loss` (eq. 2.5 of the paper).

    About standard normal under the hypothesis; positive when more was lost than the hypothesis says, 0 for no items.
    `NormalDist().cdf` of it is the one-sided p-value of "the loss is at least `loss`".
    """
    return _score(*_effective(counts), loss)


def tango_bounds(counts: PairedCounts, alpha: float = 0.05) -> tuple[float, float]:
    """One-sided score bounds of the loss p_base - p_cand: each is wrong with probability about `alpha`.

    Together they form an interval of level 1 - 2 alpha. Law: `lower <= counts.loss <= upper`, and exchanging
    the two models turns (lower, upper) into (-upper, -lower). No items give (-1, 1).

    Raises:
        ValueError: `alpha` is not between 0 and 0.5.
    """
    z = _quantile(alpha)
    n, lost, gained = _effective(counts)
    return -_upper(n, gained, lost, z), _upper(n, lost, gained, z)


def mcnemar(counts: PairedCounts, side: Literal["two-sided", "loss"] = "two-sided") -> float:
    """The exact McNemar p-value of "flips go either way equally often".

    `side="loss"` asks only whether more was lost than gained. Under the hypothesis the lost items are binomial with
    probability 1/2 among the flips; without flips the value is 1. It takes items as independent.
    """
    flips = counts.lost + counts.gained
    if side == "loss":
        return _binomial_tail(flips, counts.lost)
    return min(1.0, 2 * _binomial_tail(flips, max(counts.lost, counts.gained)))


def items_for_pass(
    margin: float, discordance: float, loss: float = 0.0, alpha: float = 0.05, power: float = 0.8
) -> int | None:
    """How many items a run needs so that its upper bound of the loss falls under `margin` with probability `power`.

    Args:
        margin: the loss that the gate tolerates, as a share (0.03 is 3 percentage points).
        discordance: the expected share of items that flip either way.
        loss: the true loss that is assumed, at most `discordance`.
        alpha: level of the one-sided bound.
        power: probability of the PASS; 0.5 asks about the expected outcome.

    Returns:
        The number of items, or None where no number is enough (`loss` is not under `margin`).

    The outcome of a run is taken as normal: its observed loss lies `z_power` standard deviations above the true one.
    The normal approximation of the sample size is where the search starts; the answer is the smallest n at which
    the score bound itself of that outcome is under the margin. At zero flips this is exact:
    n > z² (1 - margin) / margin.

    Raises:
        ValueError: an argument is outside its range.
    """
    if not 0 < margin < 1 or not 0 <= abs(loss) <= discordance <= 1 or not 0 < power < 1:
        raise ValueError(f"no sample size for {margin=}, {discordance=}, {loss=}, {power=}")
    z = _quantile(alpha)
    if loss >= margin:
        return None
    reach = _NORMAL.inv_cdf(power)
    deviation = math.sqrt(max(discordance - loss * loss, 0.0))  # of one item's contribution to the loss

    def passes(n: int) -> bool:
        observed = min(max(loss + reach * deviation / math.sqrt(n), -1.0), 1.0)
        flips = max(discordance, abs(observed))
        return _score(n, n * (flips + observed) / 2, n * (flips - observed) / 2, margin) < -z

    guess = ((z + reach) * max(deviation, math.sqrt(margin)) / (margin - loss)) ** 2
    high = max(1, math.ceil(min(guess, _MOST_ITEMS)))
    while not passes(high):
        if high >= _MOST_ITEMS:
            return None
        high *= 2
    low = 0  # never enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high


def _design_effect(baseline: Sequence[bool], candidate: Sequence[bool], clusters: Sequence[Hashable]) -> float:
    """The variance of the loss from the sums over clusters, over that of independent items; at least 1.

    Few flips say little of it: a usual effect counts as much as `_USUAL_WEIGHT` clusters in which something flips.
    """
    losses = [int(base) - int(cand) for base, cand in zip(baseline, candidate, strict=True)]
    mean = sum(losses) / max(len(losses), 1)
    sums: dict[Hashable, float] = {}
    sizes: dict[Hashable, int] = {}
    flipped: set[Hashable] = set()
    for cluster, loss in zip(clusters, losses, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + loss - mean
        sizes[cluster] = sizes.get(cluster, 0) + 1
        if loss:
            flipped.add(cluster)
    if len(sums) < 2:
        return 1.0
    # of an item drawn at random, how many others share its cluster
    others = sum(size * size for size in sizes.values()) / len(losses) - 1
    usual = 1 + others * _USUAL_CORRELATION
    independent = sum((loss - mean) ** 2 for loss in losses)
    corrected = len(sums) / (len(sums) - 1) * sum(each * each for each in sums.values())
    seen = corrected / independent if independent else usual
    return max(1.0, (len(flipped) * seen + _USUAL_WEIGHT * usual) / (len(flipped) + _USUAL_WEIGHT))


def _effective(counts: PairedCounts) -> tuple[float, float, float]:
    """n, lost and gained of as many independent items as carry the same evidence."""
    effect = counts.design_effect
    return counts.n / effect, counts.lost / effect, counts.gained / effect


def _quantile(alpha: float) -> float:
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha must lie between 0 and 0.5, not {alpha}")
    return _NORMAL.inv_cdf(1 - alpha)


def _score(n: float, lost: float, gained: float, loss: float) -> float:
    """The score statistic for real-valued flips.

    With the loss fixed, the likelihood has one free parameter, q = P(gained); P(lost) = q + loss. Its maximum is the
    larger root of 2n q² + b q - c = 0 (eq. 2.4), and the variance of lost - gained is n (2q + loss (1 - loss)).
    """
    if loss < 0:  # in the mirror nothing below is negative, so no square root and no rounding can go astray
        return -_score(n, gained, lost, -loss)
    b = (2 * n - lost + gained) * loss - lost - gained
    c = gained * loss * (1 - loss)
    root = math.hypot(b, math.sqrt(8 * n * c))
    # The two forms of the root are equal; each loses no digits on its side of b = 0.
    q = 2 * c / (root + b) if b > 0 else (root - b) / max(4 * n, 1)
    variance = n * (2 * q + loss * (1 - loss))
    distance = lost - gained - n * loss
    if variance > 0:
        return distance / math.sqrt(variance)
    return math.copysign(math.inf, distance) if distance else 0.0


def _upper(n: float, lost: float, gained: float, z: float) -> float:
    """The loss at which the score statistic is -z; the statistic falls as the loss grows."""
    if not n:
        return 1.0
    low, high = (lost - gained) / n, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _score(n, lost, gained, middle) > -z else (low, middle)
    return high


def _binomial_tail(flips: int, least: int) -> float:
    """P(X >= least) for X binomial(flips, 1/2), in whole numbers until the last division."""
    return sum(math.comb(flips, k) for k in range(least, flips + 1)) / (1 << flips)
