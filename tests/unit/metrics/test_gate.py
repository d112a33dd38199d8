import math

import pytest

from lf_export.metrics.gate import GateVerdict, Verdict, exit_status, judge_artifact, overall
from lf_export.stats import PairedCounts, tango_bounds

NONE = PairedCounts(0, 0, 0, 0, 0)


def items(n: int, lost: int = 0, gained: int = 0, neither: int = 0) -> PairedCounts:
    return PairedCounts(n, n - lost - gained - neither, lost, gained, neither)


def verdicts(gate: GateVerdict) -> dict[str, Verdict]:
    return {endpoint.name: endpoint.verdict for endpoint in gate.endpoints}


def test_an_artifact_that_flips_nothing_passes_once_there_are_items_enough() -> None:
    gate = judge_artifact(items(52), items(52), margin=0.05)
    assert gate.verdict is Verdict.PASS
    assert verdicts(gate) == {"strict_call": Verdict.PASS, "abstention": Verdict.PASS}
    assert judge_artifact(items(52), items(51), margin=0.05).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(("calls", "no_call"), [(NONE, NONE), (items(500), NONE), (NONE, items(500))])
def test_no_evidence_is_never_a_pass(calls: PairedCounts, no_call: PairedCounts) -> None:
    gate = judge_artifact(calls, no_call)
    assert gate.verdict is Verdict.INCONCLUSIVE
    empty = next(endpoint for endpoint in gate.endpoints if not endpoint.n)
    assert empty.reason == "no items were judged"
    assert empty.items_needed is not None
    assert empty.items_needed > 52
    assert math.isnan(empty.loss)


def test_a_loss_clearly_over_the_margin_on_either_endpoint_fails() -> None:
    for gate in (judge_artifact(items(300, lost=45), items(300)), judge_artifact(items(300), items(300, lost=45))):
        assert gate.verdict is Verdict.FAIL
        assert sorted(verdicts(gate).values()) == [Verdict.FAIL, Verdict.PASS]
        failed = next(endpoint for endpoint in gate.endpoints if endpoint.verdict is Verdict.FAIL)
        assert failed.lower > 0.05
        assert failed.reason.startswith("the loss is over the margin: at least 11.")
        assert failed.items_needed is None


def test_what_is_neither_is_inconclusive_and_says_how_many_items_would_tell() -> None:
    gate = judge_artifact(items(100, lost=3, gained=2), items(300), margin=0.05)
    assert gate.verdict is Verdict.INCONCLUSIVE
    calls = gate.endpoints[0]
    assert calls.lower < 0.05 < calls.upper
    assert calls.items_needed is not None
    assert calls.items_needed > 100
    assert f"about {calls.items_needed} items would tell" in calls.reason
    # that many items with the same flips do pass
    grown = calls.items_needed / 100
    lost, gained = round(3 * grown), round(2 * grown)
    assert judge_artifact(items(calls.items_needed, lost, gained), items(300)).endpoints[0].verdict is Verdict.PASS


def test_more_items_are_not_promised_to_help_when_the_seen_loss_is_at_the_margin() -> None:
    calls = judge_artifact(items(100, lost=6), items(300), margin=0.05).endpoints[0]
    assert calls.verdict is Verdict.INCONCLUSIVE
    assert calls.items_needed is None
    assert calls.reason.endswith("the observed loss is not under the margin")


@pytest.mark.parametrize("problem", ["does not load", "logits are not finite at item 3", "token ids differ"])
def test_a_broken_floor_fails_whatever_the_counts_say(problem: str) -> None:
    gate = judge_artifact(items(500), items(500), problems=[problem])
    assert gate.verdict is Verdict.FAIL
    assert gate.problems == (problem,)
    assert judge_artifact(NONE, NONE, problems=[problem]).verdict is Verdict.FAIL


def test_a_baseline_that_does_not_work_lets_nothing_pass() -> None:
    broken = items(500, neither=490)
    gate = judge_artifact(broken, items(500))
    assert gate.verdict is Verdict.INCONCLUSIVE
    assert gate.endpoints[0].reason == "the baseline is right on 2.0% only, under the floor of 25%"
    assert judge_artifact(broken, items(500), baseline_floor=0.02).verdict is Verdict.PASS


def test_two_questions_share_the_chance_of_a_false_alarm() -> None:
    # one-sided p-value 0.032 against a loss of 5 pp: enough for one question, too much for the smaller of two
    suspicious = items(300, lost=22)
    assert tango_bounds(suspicious, 0.05)[0] > 0.05
    alone = judge_artifact(suspicious, items(300))
    assert alone.endpoints[0].verdict is Verdict.INCONCLUSIVE
    assert alone.endpoints[0].lower < 0.05
    assert alone.endpoints[0].p_over_margin > 0.05
    # a question without items is still asked: it does not hand its share to the other
    assert judge_artifact(suspicious, NONE).endpoints[0].verdict is Verdict.INCONCLUSIVE
    # after a first endpoint that fails by itself the second is held against alpha
    both = judge_artifact(suspicious, items(300, lost=45))
    assert both.endpoints[0].verdict is Verdict.FAIL
    assert both.endpoints[0].lower == pytest.approx(tango_bounds(suspicious, 0.05)[0])
    assert both.endpoints[1].lower == pytest.approx(tango_bounds(items(300, lost=45), 0.025)[0])


@pytest.mark.parametrize("margin", [0.0, 1.0, -0.05])
def test_a_margin_that_is_no_share_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match="margin"):
        judge_artifact(items(10), items(10), margin=margin)


def test_a_stricter_alpha_needs_more_items() -> None:
    assert judge_artifact(items(60), items(60)).verdict is Verdict.PASS
    assert judge_artifact(items(60), items(60), alpha=0.01).verdict is Verdict.INCONCLUSIVE


def test_several_verdicts_make_one() -> None:
    yes, no, open_ = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE
    assert overall([yes, yes]) is yes
    assert overall([yes, open_]) is open_
    assert overall([open_, no, yes]) is no
    assert overall([]) is open_


def test_each_verdict_has_its_exit_status() -> None:
    assert {verdict: exit_status(verdict) for verdict in Verdict} == {
        Verdict.PASS: 0,
        Verdict.FAIL: 10,
        Verdict.INCONCLUSIVE: 11,
    }


def test_each_endpoint_may_have_a_margin_of_its_own() -> None:
    gate = judge_artifact(items(100), items(100), margins={"abstention": 0.02})
    assert verdicts(gate) == {"strict_call": Verdict.PASS, "abstention": Verdict.INCONCLUSIVE}
    assert [endpoint.margin for endpoint in gate.endpoints] == [0.05, 0.02]
    with pytest.raises(ValueError, match="between 0 and 1"):
        judge_artifact(items(100), items(100), margins={"abstention": 0.0})


def test_with_fewer_items_than_asked_nothing_passes_and_what_fails_still_fails() -> None:
    gate = judge_artifact(items(100), items(400), min_items=300)
    assert verdicts(gate) == {"strict_call": Verdict.INCONCLUSIVE, "abstention": Verdict.PASS}
    assert gate.endpoints[0].reason == "only 100 items were judged, at least 300 are asked"
    assert gate.endpoints[0].items_needed == 300
    assert judge_artifact(items(100, lost=40), items(400), min_items=300).verdict is Verdict.FAIL


def test_items_that_flip_together_need_more_of_them() -> None:
    alone = judge_artifact(items(100, lost=3, gained=2), items(300)).endpoints[0]
    together = judge_artifact(PairedCounts(100, 95, 3, 2, 0, design_effect=2.0), items(300)).endpoints[0]
    assert together.design_effect == 2
    assert together.upper > alone.upper
    assert alone.items_needed is not None
    assert together.items_needed is not None
    assert together.items_needed >= 2 * alone.items_needed - 1
