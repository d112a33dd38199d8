"""The gate: does an artifact still call functions, and abstain, as well as the baseline? PASS, FAIL or INCONCLUSIVE.

Both endpoints are paired: the same items, greedy answers, right or wrong. An artifact passes when *every* endpoint's
one-sided Tango bound of the loss lies under the margin; as all must hold, no correction is needed (an
intersection-union test: R. Berger, Technometrics 24 (1982), 295-300). It fails when *any* endpoint's loss is over the
margin; there each endpoint is one more chance of a false alarm, so those tests share alpha by Holm's method. Everything
else is INCONCLUSIVE. No evidence is never a PASS.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import ceil
from statistics import NormalDist

from lf_export.stats import PairedCounts, holm, items_for_pass, mcnemar, score_statistic, tango_bounds

STRICT_CALL = "strict_call"
ABSTENTION = "abstention"

# Where nothing was measured, the plan for a PASS assumes flips on one item in twenty, as 4-bit artifacts show.
_USUAL_DISCORDANCE = 0.05


class Verdict(StrEnum):
    """What the gate says."""

    PASS = "PASS"  # noqa: S105 - not a password
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True)
class EndpointVerdict:
    """The verdict on one endpoint, with what it rests on. Rates, losses and bounds are shares of items.

    Attributes:
        design_effect: how many times larger the variance of the loss is than with independent items.
        lower: one-sided Tango bound of the loss at the level that Holm gives this endpoint; FAIL when over the margin.
        upper: one-sided Tango bound of the loss at alpha; PASS needs it under the margin.
        p_over_margin: Holm-adjusted p-value of "the loss is at most the margin".
        mcnemar_p: exact two-sided McNemar p-value of "nothing changed".
        items_needed: for INCONCLUSIVE, how many items a PASS would take with 80 % probability if flips stay as
            seen; None where no number would do.
        reason: one sentence.
    """

    name: str
    margin: float
    verdict: Verdict
    n: int
    lost: int
    gained: int
    baseline_rate: float
    candidate_rate: float
    loss: float
    design_effect: float
    lower: float
    upper: float
    p_over_margin: float
    mcnemar_p: float
    items_needed: int | None
    reason: str


@dataclass(frozen=True)
class GateVerdict:
    """The verdict on one artifact: its endpoints, and the hard floors that broke."""

    verdict: Verdict
    endpoints: tuple[EndpointVerdict, ...]
    problems: tuple[str, ...]


def judge_artifact(
    calls: PairedCounts,
    no_call: PairedCounts,
    *,
    margin: float = 0.05,
    margins: Mapping[str, float] | None = None,
    alpha: float = 0.05,
    baseline_floor: float = 0.25,
    min_items: int = 1,
    problems: Sequence[str] = (),
) -> GateVerdict:
    """Judge one artifact on strict call success and correct abstention.

    Args:
        calls: call items, "right" being a strict exact call.
        no_call: items that no function serves, "right" being a prose answer.
        margin: the largest loss that is accepted, as a share of items.
        margins: another margin for an endpoint, by its name.
        alpha: one-sided error rate, between 0 and 0.5.
        baseline_floor: an endpoint on which the baseline itself is right less often than this cannot pass:
            what does not work cannot be shown to have survived.
        min_items: an endpoint with fewer items cannot pass.
        problems: hard floors that broke, in words (does not load, NaN, token ids differ, loops); any of them is a FAIL.

    Raises:
        ValueError: `margin` or `alpha` is outside its range.
    """
    named = {STRICT_CALL: calls, ABSTENTION: no_call}
    accepted = {name: (margins or {}).get(name, margin) for name in named}
    for each in accepted.values():
        if not 0 < each < 1:
            raise ValueError(f"the margin must lie between 0 and 1, not {each}")
    raw = [_p_over_margin(counts, accepted[name]) for name, counts in named.items()]
    adjusted = holm(raw)
    rejected = sum(p <= alpha for p in adjusted)
    endpoints = []
    for index, (name, counts) in enumerate(named.items()):
        # Holm's steps: the smallest p-value is held against alpha / 2, and only after that the other against alpha.
        # The bound is shown at the level of its step, so that a lower bound over the margin and a FAIL are one thing.
        rank = sorted(range(len(raw)), key=raw.__getitem__).index(index)
        lower = tango_bounds(counts, alpha / (len(raw) - min(rank, rejected)))[0]
        endpoints.append(
            _judge_endpoint(
                name,
                counts,
                accepted[name],
                alpha,
                lower=lower,
                p=adjusted[index],
                floor=baseline_floor,
                min_items=min_items,
            )
        )
    verdict = Verdict.FAIL if problems else overall([endpoint.verdict for endpoint in endpoints])
    return GateVerdict(verdict, tuple(endpoints), tuple(problems))


def overall(verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict for several: FAIL if any fails, PASS if there are some and all pass, else INCONCLUSIVE."""
    if Verdict.FAIL in verdicts:
        return Verdict.FAIL
    if verdicts and all(verdict is Verdict.PASS for verdict in verdicts):
        return Verdict.PASS
    return Verdict.INCONCLUSIVE


def exit_status(verdict: Verdict) -> int:
    """The exit status of a verdict: 0 PASS, 10 FAIL, 11 INCONCLUSIVE."""
    return {Verdict.PASS: 0, Verdict.FAIL: 10, Verdict.INCONCLUSIVE: 11}[verdict]


def _p_over_margin(counts: PairedCounts, margin: float) -> float:
    return NormalDist().cdf(-score_statistic(counts, margin)) if counts.n else 1.0


def _judge_endpoint(
    name: str,
    counts: PairedCounts,
    margin: float,
    alpha: float,
    *,
    lower: float,
    p: float,
    floor: float,
    min_items: int,
) -> EndpointVerdict:
    upper = tango_bounds(counts, alpha)[1]
    needed = None
    if not counts.n:
        verdict = Verdict.INCONCLUSIVE
        needed = items_for_pass(margin, _USUAL_DISCORDANCE, alpha=alpha)
        reason = "no items were judged"
    elif p <= alpha:
        verdict = Verdict.FAIL
        reason = f"the loss is over the margin: at least {_points(lower)}, {_points(margin)} accepted"
    elif counts.baseline_rate < floor:
        verdict = Verdict.INCONCLUSIVE
        reason = f"the baseline is right on {counts.baseline_rate:.1%} only, under the floor of {floor:.0%}"
    elif counts.n < min_items:
        verdict = Verdict.INCONCLUSIVE
        needed = max(min_items, _items_needed(counts, margin, alpha) or 0)
        reason = f"only {counts.n} items were judged, at least {min_items} are asked"
    elif upper < margin:
        verdict = Verdict.PASS
        reason = f"the loss is under the margin: at most {_points(upper)}, {_points(margin)} accepted"
    else:
        verdict = Verdict.INCONCLUSIVE
        needed = _items_needed(counts, margin, alpha)
        reason = f"the loss may be {_points(upper)}, {_points(margin)} accepted: "
        reason += f"about {needed} items would tell" if needed else "the observed loss is not under the margin"
    return EndpointVerdict(
        name=name,
        margin=margin,
        verdict=verdict,
        n=counts.n,
        lost=counts.lost,
        gained=counts.gained,
        baseline_rate=counts.baseline_rate,
        candidate_rate=counts.candidate_rate,
        loss=counts.loss,
        design_effect=counts.design_effect,
        lower=lower,
        upper=upper,
        p_over_margin=p,
        mcnemar_p=mcnemar(counts),
        items_needed=needed,
        reason=reason,
    )


def _items_needed(counts: PairedCounts, margin: float, alpha: float) -> int | None:
    """Items for a PASS with 80 % probability, if flips stay as frequent as seen and a seen loss is the true one."""
    needed = items_for_pass(margin, counts.discordance, loss=max(counts.loss, 0.0), alpha=alpha)
    return None if needed is None else max(ceil(needed * counts.design_effect), counts.n + 1)


def _points(share: float) -> str:
    return f"{100 * share:.1f} pp"
