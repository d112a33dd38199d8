"""Ratios of latency in the views: with their interval, and a mark by the interval and not by the estimate."""

import pytest

from lf_export.report import Report
from lf_export.report.html import to_html
from lf_export.report.markdown import to_markdown


def with_ratios(report: Report, lower: float | None) -> Report:
    found = {"estimate": 1.25, "lower": lower, "upper": None if lower is None else 1.5}
    ratios = {"prompts": 8, "rounds": 2, "ttft": found, "tpot": found, "end_to_end": found}
    plain = report.model_dump(mode="json")
    plain["artifacts"][0]["latency_ratios"] = ratios
    return Report.model_validate(plain)


@pytest.mark.parametrize(("lower", "shown"), [(1.1, "1.25 (1.10 to 1.50)"), (None, "1.25")])
def test_ratios_are_shown_with_their_interval_where_they_have_one(
    report: Report, lower: float | None, shown: str
) -> None:
    found = with_ratios(report, lower)
    assert f"| {shown} |" in to_markdown(found)
    assert f'<td class="n">{shown}</td>' in to_html(found)


def test_slower_is_marked_by_the_interval_and_not_by_the_estimate(report: Report) -> None:
    marks = [to_html(with_ratios(report, lower)).count('class="slower"') for lower in (1.1, 0.9, None)]
    assert marks[0] == marks[1] + 2 == marks[2] + 2
