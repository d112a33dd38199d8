"""How sure the report is of identical chat answers, and what it shows of the others."""

import pytest
from flipped_report import flipped_report

from lf_export.report.html import to_html
from lf_export.report.markdown import to_markdown
from lf_export.steps.chat import chat_drift


def test_a_few_identical_answers_prove_little() -> None:
    said = {str(at): ((at, 2), "text") for at in range(8)}
    found = chat_drift(said, said)
    assert found is not None
    assert (found.identical, found.identical_upper) == (8, 1)
    assert found.identical_lower == pytest.approx(0.676, abs=5e-4)  # R. G. Newcombe (1998), method 3, for 8 of 8


def test_both_intervals_stand_in_the_views() -> None:
    report = flipped_report(8)
    row = "| 3 | 30.1 % to 95.4 % | 90.0 % | 70.0 % to 100.0 % | 5.00 |"
    assert sum(line.endswith(row) for line in to_markdown(report).splitlines()) == 3
    assert to_html(report).count('<td class="n">30.1 % to 95.4 %</td>') == 3
