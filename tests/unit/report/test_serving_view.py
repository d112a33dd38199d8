import pytest

from lf_export.metrics.serving import Limits, level
from lf_export.report.serving import (
    ServingLevel,
    ShownFidelity,
    failures_text,
    limits_text,
    serving_rows,
    shown_rows,
)


@pytest.fixture
def named() -> list[tuple[str, list[ServingLevel]]]:
    answered = [(0.2, 0.25, 0.3), (0.8, 0.9), "HTTP 429: slow down"]
    return [("served", [ServingLevel.model_validate(level(2, answered, 2.0, Limits(0.5, 0.1)))])]


def test_a_level_says_how_much_and_how_fast_and_how_many_were_in_time(
    named: list[tuple[str, list[ServingLevel]]],
) -> None:
    head, (row,) = serving_rows(named)
    shown = dict(zip(head, row, strict=True))
    assert shown["concurrency"] == "2"
    assert shown["requests/s"] == "1.00"
    assert shown["tokens/s"] == "2.50"
    assert shown["TTFT p50 / p90 / p99"].startswith("500 / ")
    assert shown["goodput"] == "33.3 %"
    assert shown["failed"] == "1"


def test_the_limits_and_the_failures_are_stated(named: list[tuple[str, list[ServingLevel]]]) -> None:
    assert limits_text(named) == [
        "Goodput: the share of requests with a first token within 500 ms and 100 ms for each token after it."
    ]
    assert list(failures_text(named)) == ["served, concurrency 2: 1 × HTTP 429: slow down"]  # noqa: RUF001


def test_a_level_at_which_nothing_was_answered_has_dashes() -> None:
    none = ServingLevel.model_validate(level(1, ["refused"], 0.0, Limits(1, 1)))
    _, (row,) = serving_rows([("served", [none])])
    assert row == ["served", "1", "–", "–", "–", "–", "0.0 %", "1"]  # noqa: RUF001


def test_what_was_not_measured_has_a_dash_and_never_a_zero() -> None:
    _, (row,) = shown_rows([("served", [("call", ShownFidelity(tokens=3, top1_agreement=1.0, margin_unknown=1))])])
    assert row == ["served", "call", "3", "–", "–", "–", "100.0 %", "–"]  # noqa: RUF001
