"""Laws of the gate that hold for any counts."""

from hypothesis import given
from hypothesis import strategies as st

from lf_export.metrics.gate import Verdict, judge_artifact
from lf_export.stats import PairedCounts

margins = st.sampled_from([0.01, 0.02, 0.03, 0.05, 0.2])
ORDER = [Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS]


@st.composite
def counts(draw: st.DrawFn) -> PairedCounts:
    both, lost, gained, neither = draw(st.integers(0, 600)), *(draw(st.integers(0, 60)) for _ in range(3))
    return PairedCounts(both + lost + gained + neither, both, lost, gained, neither)


@given(counts(), counts(), margins)
def test_bounds_and_verdicts_say_the_same(calls: PairedCounts, no_call: PairedCounts, margin: float) -> None:
    gate = judge_artifact(calls, no_call, margin=margin)
    for endpoint in gate.endpoints:
        if endpoint.verdict is Verdict.PASS:
            assert endpoint.n > 0
            assert endpoint.upper < margin
        if endpoint.verdict is Verdict.FAIL:
            assert endpoint.lower > margin - 1e-9
        else:
            assert endpoint.lower < margin + 1e-9
        if endpoint.items_needed is not None:
            assert endpoint.verdict is Verdict.INCONCLUSIVE
            assert endpoint.items_needed > endpoint.n


@given(counts(), counts(), margins)
def test_a_wider_margin_never_makes_a_verdict_worse(calls: PairedCounts, no_call: PairedCounts, margin: float) -> None:
    tight = judge_artifact(calls, no_call, margin=margin)
    wide = judge_artifact(calls, no_call, margin=margin + 0.05)
    assert ORDER.index(wide.verdict) >= ORDER.index(tight.verdict)
