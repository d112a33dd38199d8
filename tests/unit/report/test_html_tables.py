"""Slices, variants, servers under load and what servers show stand on the page, and only where there are some."""

import re

import pytest
from flipped_report import HOSTILE, flipped_report

from lf_export.metrics.serving import Limits, level
from lf_export.report import Report, to_html
from lf_export.report.model import ArtifactReport
from lf_export.report.serving import ServingLevel, ShownFidelity


def rows_of(page: str, caption: str) -> list[list[str]]:
    table = page.partition(f"<caption>{caption}</caption>")[2].partition("</table>")[0]
    found = [
        re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in re.findall(r"<tr.*?</tr>", table, re.DOTALL)
    ]
    return [[re.sub(r"<[^>]+>", "", cell).strip() for cell in row] for row in found]


@pytest.fixture
def served() -> Report:
    plain = flipped_report()
    answered = [(0.2, 0.25, 0.3), (0.8, 0.9), f"HTTP 429: {HOSTILE}"]
    first = plain.artifacts[0].model_copy(
        update={
            "serving": [ServingLevel.model_validate(level(2, answered, 2.0, Limits(0.5, 0.1)))],
            "fidelity_shown": {"call": ShownFidelity(tokens=31, kl_at_least_mean=0.0125, top1_agreement=0.5)},
        }
    )
    return plain.model_copy(update={"artifacts": [first, *plain.artifacts[1:]]})


def test_slices_and_variants_are_tables_by_artifact() -> None:
    page = to_html(flipped_report())
    head, row = rows_of(page, "Right answers by slice")
    assert head == ["right, strict", "items", "merged", "q8_0", "gptq-4bit", "q2_k"]
    assert row[:3] == ["2-4 functions", "20", "60.0 %"]
    masked = [row for row in rows_of(page, "Variants of the suites") if row[1] == "masked"]
    assert len(masked) == 4
    assert masked[0][2:4] == ["37.5 %", "50.0 %"]


def test_the_margins_ratio_stands_beside_the_divergence() -> None:
    row = next(row for row in rows_of(to_html(flipped_report()), "Divergence by class of token") if "call" in row)
    assert row[-2:] == ["0.973", "0.941 to 1.02"]


def test_a_server_shows_its_load_and_the_lower_bound_of_its_divergence(served: Report) -> None:
    page = to_html(served)
    head, row = rows_of(page, "Servers under load")
    assert dict(zip(head, row, strict=True))["goodput"] == "33.3 %"
    assert rows_of(page, "What servers showed")[1][:4] == ["q8_0", "call", "31", "0.0125"]
    assert "lower bound" in page
    assert page.count("<script") == 1


def test_without_any_of_them_there_is_no_empty_section() -> None:
    plain = flipped_report()

    def bare(part: ArtifactReport) -> ArtifactReport:
        calls = part.calls and part.calls.model_copy(update={"by_slice": {}})
        return part.model_copy(update={"calls": calls, "variants": {}})

    report = plain.model_copy(
        update={"baseline": bare(plain.baseline), "artifacts": [bare(each) for each in plain.artifacts]}
    )
    page = to_html(report)
    for part in ("slices", "load"):
        assert f'id="{part}"' not in page
        assert f'href="#{part}"' not in page
    assert 'id="fidelity"' in page
