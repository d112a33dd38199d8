"""From an arm's answers to its part of the report: what it gains, and what it hides."""

from collections.abc import Mapping, Sequence

from lf_export.metrics.calls import JudgedAnswer
from lf_export.metrics.gate import ABSTENTION, STRICT_CALL
from lf_export.report.arms import ArmChange, ArmItem, ArmResult, RouterAccuracy
from lf_export.stats import PairedCounts, paired, tango_bounds, wilson
from lf_export.steps.arms import ArmFound, RouterFacts
from lf_export.steps.measure import Measured
from lf_export.steps.prompts import Prompt, cluster_of

_SIDE = 0.025  # two one-sided bounds make an interval of 95 %
Answers = Mapping[str, JudgedAnswer]


def arm_results(found: Measured, baseline: Measured | None, prompts: Sequence[Prompt]) -> list[ArmResult]:
    """Each arm of an artifact; `baseline` is None for the baseline itself."""
    own = [prompt for prompt in prompts if not prompt.item.variant]
    return [_result(arm, each, found, baseline, own) for arm, each in found.arms.items()]


def _result(
    arm: str, found: ArmFound, artifact: Measured, baseline: Measured | None, prompts: Sequence[Prompt]
) -> ArmResult:
    if found.missing:
        return ArmResult.model_validate({"arm": arm, "missing": found.missing})
    raw = artifact.answers
    theirs = None if baseline is None else baseline.arms.get(arm)
    changes = []
    for endpoint, calls in ((STRICT_CALL, True), (ABSTENTION, False)):
        judged = [
            prompt
            for prompt in prompts
            if bool(prompt.item.expected.calls) == calls and prompt.item.id in found.answers
        ]
        if judged:
            changes.append(_change(endpoint, judged, raw, found.answers, baseline, theirs))
    return ArmResult.model_validate(
        {
            "arm": arm,
            "engine": found.engine,
            "asked": found.asked,
            "changes": changes,
            "unknown_functions": sum(map(_unknown, found.answers.values())),
            "malformed": sum(answer.kind == "malformed" for answer in found.answers.values()),
            "raw_unknown_functions": sum(_unknown(raw[name]) for name in found.answers),
            "raw_malformed": sum(raw[name].kind == "malformed" for name in found.answers),
            "router": None if found.router is None else _router(found.router),
            "items": [
                ArmItem.model_validate(
                    {
                        "suite": "calls" if prompt.item.expected.calls else "no_call",
                        "id": prompt.item.id,
                        "kind": answer.kind,
                        "correct": answer.exact,
                        "answer": answer.text,
                    }
                )
                for prompt in prompts
                if (answer := found.answers.get(prompt.item.id)) and answer.text != raw[prompt.item.id].text
            ],
        }
    )


def _change(
    endpoint: str,
    prompts: Sequence[Prompt],
    raw: Answers,
    answers: Answers,
    baseline: Measured | None,
    theirs: ArmFound | None,
) -> ArmChange:
    ids = [prompt.item.id for prompt in prompts]
    clusters = [cluster_of(prompt.item) for prompt in prompts]

    def counts(before: Answers, after: Answers) -> PairedCounts:
        return paired([before[name].exact for name in ids], [after[name].exact for name in ids], clusters)

    own = counts(raw, answers)
    lower, upper = tango_bounds(own, _SIDE)
    facts = {
        "endpoint": endpoint,
        "n": own.n,
        "right": own.both + own.gained,
        "gained": own.gained,
        "lost": own.lost,
        "change": -own.loss,
        "lower": -upper,
        "upper": -lower,
    }
    if baseline is not None:
        lost = [name for name in ids if baseline.answers[name].exact and not raw[name].exact]
        facts |= {
            "raw_loss": counts(baseline.answers, raw).loss,
            "raw_lost": len(lost),
            "hidden": sum(answers[name].exact for name in lost),
        }
    if theirs is not None and not theirs.missing:
        against = counts(theirs.answers, answers)
        lower, upper = tango_bounds(against, _SIDE)
        facts |= {"loss": against.loss, "loss_lower": lower, "loss_upper": upper}
    return ArmChange.model_validate(facts)


def _unknown(answer: JudgedAnswer) -> bool:
    return "unknown_function" in (*answer.errors, answer.schema_error)


def _router(facts: RouterFacts) -> RouterAccuracy:
    held, items = wilson(facts.held_right, facts.held), wilson(facts.items_right, facts.items)
    return RouterAccuracy(
        trained=facts.trained,
        held_out=facts.held,
        held_out_right=facts.held_right,
        held_out_lower=held.lower,
        held_out_upper=held.upper,
        items=facts.items,
        items_right=facts.items_right,
        items_lower=items.lower,
        items_upper=items.upper,
    )
