"""Answers counted whole, by category, by slice and by variant."""

import numpy as np
import pytest
from conversations import FUNCTIONS, user

from lf_export.calibration.suites import EvalItem
from lf_export.functions.answers import Answer, Call, calling, prose
from lf_export.metrics.calls import JudgedAnswer, judge
from lf_export.steps.counts import call_metrics, no_call_metrics, variant_metrics
from lf_export.steps.prompts import Prompt

PARIS = Call("get_weather", {"city": "Paris", "days": 3})
END = frozenset({2})


def prompt(name: str, expected: Answer, *, variant: str = "", category: str = "single", shown: int = 2) -> Prompt:
    item = EvalItem(name, category, "", (user("x"),), FUNCTIONS[:shown], expected, variant=variant)
    return Prompt(item, "", (1,), (1, 2), np.zeros(2, np.uint8))


def judged(which: Prompt, answer: Answer) -> JudgedAnswer:
    return judge(answer, which.item.expected.calls, which.item.functions, [5, 2], END)


def test_calls_are_counted_by_category_and_slice() -> None:
    prompts = [prompt("a", calling(PARIS)), prompt("b", calling(PARIS), shown=1), prompt("c", calling(PARIS, PARIS))]
    half = Call("get_weather", {"city": "Paris", "days": "4"})
    answers = {
        "a": judged(prompts[0], calling(PARIS)),
        "b": judged(prompts[1], calling(half)),
        "c": judged(prompts[2], prose("No.")),
    }
    found = call_metrics(prompts, answers)
    assert found is not None
    assert (found.n, found.strict_exact, found.name_ok, found.schema_valid) == (3, 1, 2, 1)
    assert found.schema_errors == {"int_type": 1}
    assert found.errors == {"wrong_type": 1, "not_a_call": 1}
    assert {name: (each.n, each.strict_exact) for name, each in found.by_slice.items()} == {
        "single": (1, 0), "one of several": (1, 1), "parallel": (1, 0), "1 function": (1, 0), "2 to 4 functions": (2, 1)
    }  # fmt: skip
    assert next(iter(found.by_slice)) == "single"


def test_arguments_are_counted_with_an_interval_over_items() -> None:
    prompts = [prompt(f"i{at}", calling(PARIS)) for at in range(40)]
    half = Call("get_weather", {"city": "Paris", "days": 4})
    answers = {each.item.id: judged(each, calling(half if at % 4 == 0 else PARIS)) for at, each in enumerate(prompts)}
    found = call_metrics(prompts, answers)
    assert found is not None
    assert found.arguments is not None
    assert (found.arguments.expected, found.arguments.right) == (80, 70)
    assert found.arguments.lower is not None
    assert found.arguments.upper is not None
    assert found.arguments.lower < 70 / 80 < found.arguments.upper
    # the two arguments of an item are one draw: the interval is that of 40 items, not of 80 arguments
    width = found.arguments.upper - found.arguments.lower
    assert width == pytest.approx(2 * 1.96 * 0.5 * np.sqrt(0.25 * 0.75 / 40), rel=0.2)


def test_abstentions_are_counted_by_both_scores() -> None:
    prompts = [prompt(f"i{at}", prose("No.")) for at in range(4)]
    given = [prose("No."), Answer("malformed", (), "{"), Answer("empty"), calling(PARIS)]
    answers = {each.item.id: judged(each, answer) for each, answer in zip(prompts, given, strict=True)}
    found = no_call_metrics(prompts, answers)
    assert found is not None
    assert (found.n, found.abstained, found.malformed, found.empty, found.called, found.bfcl_like) == (4, 1, 1, 1, 1, 3)
    assert {name: (each.n, each.abstained) for name, each in found.by_slice.items()} == {
        "no call": (4, 1), "2 to 4 functions": (4, 1)
    }  # fmt: skip


def test_variants_are_counted_apart() -> None:
    prompts = [
        prompt("a", calling(PARIS)),
        prompt("a~masked", calling(PARIS), variant="masked"),
        prompt("b~masked", prose("No."), variant="masked"),
        prompt("a~distractors:2", calling(PARIS), variant="distractors:2"),
    ]
    answers = {each.item.id: judged(each, calling(PARIS)) for each in prompts[:3]}
    found = variant_metrics(prompts, answers)
    assert list(found) == ["masked"]
    assert found["masked"].calls is not None
    assert found["masked"].no_call is not None
    assert (found["masked"].calls.n, found["masked"].no_call.called) == (1, 1)


def test_nothing_answered_is_nothing_counted() -> None:
    assert call_metrics([prompt("a", calling(PARIS))], {}) is None
    assert no_call_metrics([], {}) is None
