"""The arms in the report's views: beside the raw answers, what each gains, and what it hides."""

from pathlib import Path

from flipped_report import flipped_report

from lf_export.report import Report, read_report, to_html, to_markdown, write_report
from lf_export.report.arms import arm_lines, arm_table


def rows_of(report: Report) -> list[dict[str, str]]:
    head, rows = arm_table(report)
    assert all(len(row) == len(head) for row in rows)
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_each_arm_stands_beside_the_raw_answers() -> None:
    rows = rows_of(flipped_report(24))
    first = next(at for at, row in enumerate(rows) if row["artifact"] == "q8_0")
    raw, silent, held, *_ = rows[first : first + 6]
    assert (raw["arm"], raw["of"], raw["right"], raw["lost to the baseline (95 %)"]) == (
        "raw",
        "exact calls",
        "50.0 %",
        "15.0 pp",
    )
    assert (raw["unknown functions"], raw["malformed"]) == ("2", "5")
    assert (silent["arm"], silent["of"], silent["right"]) == ("", "abstention", "75.0 %")
    assert (held["arm"], held["right"], held["gains"], held["losses"]) == ("constrained", "60.0 %", "3", "1")
    assert held["change (95 %)"] == "10.0 pp (-5.0 to 25.0)"
    assert held["lost to the baseline (95 %)"] == "5.0 pp (-2.0 to 12.0)"
    assert (held["hides"], held["unknown functions"], held["malformed"]) == ("2 of 4", "0", "1")
    assert [row["arm"] for row in rows[first : first + 6]] == ["raw", "", "constrained", "", "routed", ""]


def test_an_arm_that_is_not_available_says_so_and_shows_no_figures() -> None:
    report = flipped_report(24)
    rows = rows_of(report)
    first = next(at for at, row in enumerate(rows) if row["artifact"] == "q2_k")
    assert [row["arm"] for row in rows[first:]] == ["constrained", "routed"]
    for row in rows[first:]:
        assert row["of"] == "not available"
        assert {row[name] for name in ("right", "gains", "hides", "malformed")} == {"\u2013"}
    assert "q2_k, constrained: not available: no engine " in arm_lines(report)


def test_a_router_says_how_often_it_is_right() -> None:
    (line,) = [line for line in arm_lines(flipped_report(24)) if line.startswith("q8_0, routed")]
    assert "trained on 128 calibration conversations, is right on 60 of 64 held out (85.0 % to 97.5 %)" in line
    assert "23 of 24 items (80.0 % to 99.0 %)" in line


def test_every_view_has_the_arms_and_a_report_without_them_has_no_section(tmp_path: Path) -> None:
    report = flipped_report(24)
    assert "## Arms" in to_markdown(report)
    page = to_html(report)
    assert "Arms beside the raw answers" in page
    assert "60 of 64 held out" in page
    write_report(report, tmp_path)
    assert read_report(tmp_path / "report.json").artifacts[0].arms == report.artifacts[0].arms
    bare = report.model_copy(
        update={
            "baseline": report.baseline.model_copy(update={"arms": []}),
            "artifacts": [each.model_copy(update={"arms": []}) for each in report.artifacts],
        }
    )
    assert "Arms" not in to_markdown(bare)
    assert 'href="#arms"' not in to_html(bare)
