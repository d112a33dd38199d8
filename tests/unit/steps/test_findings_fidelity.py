"""Fidelity by token class: what the report says of tokens whose divergence is known by hand."""

import numpy as np
import pytest

from lf_export.calibration.suites import EvalItem
from lf_export.calibration.tokens import TokenClass
from lf_export.functions.answers import Answer
from lf_export.metrics.fidelity import TokenFidelity
from lf_export.steps.findings import fidelity_by_class
from lf_export.steps.prompts import Prompt

CLASSES = np.array([TokenClass.PROMPT, TokenClass.NAME, TokenClass.VALUE], np.uint8)


def _prompt(name: str) -> Prompt:
    item = EvalItem(id=name, category="single", block="", messages=(), functions=(), expected=Answer("call", (), ""))
    return Prompt(item, "", (1,), (1, 2, 3), CLASSES)


def _values(margin: list[float], baseline: list[float]) -> TokenFidelity:
    zeros = np.zeros(len(margin))
    return TokenFidelity(zeros, np.array(margin) > 0, np.array(margin), np.array(baseline), zeros, zeros)


def test_the_margins_ratio_is_that_of_the_means_and_its_interval_is_over_items() -> None:
    prompts = [_prompt("a"), _prompt("b"), _prompt("c")]
    compared = {
        "a": _values([1.0, 3.0], [2.0, 4.0]),
        "b": _values([2.0, 1.0], [2.0, 4.0]),
        "c": _values([4.0, -1.0], [5.0, 3.0]),
    }
    found = fidelity_by_class(prompts, compared)
    assert found["call"].margin_ratio == pytest.approx(10 / 20)
    assert found["name"].margin_ratio == pytest.approx(7 / 9)
    assert found["value"].margin_ratio == pytest.approx(3 / 11)
    # no draw of items is better than the best of them or worse than the worst
    assert found["call"].margin_ratio_lower == pytest.approx(3 / 8)
    assert found["call"].margin_ratio_upper == pytest.approx(4 / 6)


def test_a_baseline_without_any_room_gives_no_ratio() -> None:
    found = fidelity_by_class([_prompt("a")], {"a": _values([1.0, -1.0], [0.0, 0.0])})
    assert found["call"].margin_ratio is None
    assert found["call"].margin_mean == 0
