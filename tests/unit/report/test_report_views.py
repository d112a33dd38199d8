# ruff: noqa: RUF001 - the views write dashes and multiplication signs
import pytest

from lf_export.report import ArtifactReport, Report, cells, render_table, to_markdown

TABLE = """\
artifact          verdict  exact calls    BFCL  abstention  KL call  chat ppl        TTFT   tok/s    disk
---------  --------------  -----------  ------  ----------  -------  --------  ----------  ------  ------
merged           baseline       80.0 %  82.5 %      92.5 %        –      12.0    1,200 ms    25.0  540 MB
q8_0                 PASS       80.6 %  83.1 %      92.5 %  0.00210      12.5      600 ms    50.0  145 MB
gptq-4bit  INCONCLUSIVE *       80.6 %  83.1 %      92.5 %  0.00210      12.5  2,400 ms †  12.5 †  145 MB

right, strict        items   merged     q8_0  gptq-4bit
-------------------  -----  -------  -------  ---------
one of several         100   88.0 %   89.0 %     89.0 %
2 to 4 functions       160   80.0 %   80.6 %     80.6 %
no call                 80   92.5 %   92.5 %     92.5 %
no call, 1 function     20  100.0 %  100.0 %    100.0 %

q8_0: strict_call PASS: the loss is under the margin: at most 1.7 pp, 5.0 pp accepted
q8_0: abstention PASS: the loss is under the margin: at most 1.7 pp, 5.0 pp accepted
gptq-4bit: strict_call INCONCLUSIVE: the loss may be 6.1 pp
gptq-4bit: abstention PASS: the loss is under the margin: at most 1.7 pp, 5.0 pp accepted
† not representative for speed
* advisory: does not decide the exit status
verdict: PASS"""


def changed(report: Report, **changes: object) -> Report:
    return Report.model_validate(report.model_dump() | changes)


def bare(name: str) -> ArtifactReport:
    return ArtifactReport(name=name, format="gguf", enforced=True)


def section(page: str, title: str) -> list[str]:
    assert f"\n## {title}\n" in page
    return page.partition(f"\n## {title}\n")[2].partition("\n## ")[0].strip().splitlines()


def test_the_terminal_shows_a_row_for_each_artifact_then_why_then_the_verdict(report: Report) -> None:
    assert render_table(report) == TABLE


def test_the_terminal_shows_dashes_for_what_was_not_measured(report: Report) -> None:
    failed = {
        **bare("q4").model_dump(),
        "gate": {"verdict": "FAIL", "problems": ["does not load: bad magic"]},
    }
    lines = render_table(changed(report, artifacts=[failed], verdict="FAIL")).splitlines()
    assert lines[3].split() == ["q4", "FAIL", *[cells.NOTHING] * 8]
    assert lines[-2:] == ["q4: does not load: bad magic", "verdict: FAIL"]


def test_the_page_says_the_verdict_first_and_why(report: Report) -> None:
    page = to_markdown(report)
    assert page.startswith(
        "# quickstart: PASS\n\n**PASS**: 1 of 1 enforced artifacts pass against `merged` at a margin of 5.0 pp "
    )
    assert "| q8_0 | PASS | strict_call: PASS | 160 | 1 | 2 | -0.6 pp | -3.1 pp to 1.7 pp | – |" in page
    assert "| gptq-4bit | INCONCLUSIVE (advisory) | strict_call: INCONCLUSIVE | 160 |" in page
    assert "- **gptq-4bit**: strict_call INCONCLUSIVE: the loss may be 6.1 pp; abstention PASS" in page


def test_the_page_tells_malformed_answers_from_abstentions(report: Report) -> None:
    lines = section(to_markdown(report), "Calls and abstention")
    assert lines[0].endswith("| no-call items | abstained | BFCL | called | malformed | empty |")
    assert lines[3].endswith("| 80 | 92.5 % | 96.2 % | 3.8 % | 2.5 % | 1.2 % |")


def test_the_page_shows_both_scores_arguments_and_schema_validity_beside_each_other(report: Report) -> None:
    lines = section(to_markdown(report), "Calls and abstention")
    assert lines[0].startswith(
        "| artifact | items | exact calls | BFCL | right names | right arguments | 95 % | schema"
    )
    assert lines[3].startswith("| q8_0 | 160 | 80.6 % | 83.1 % | 93.8 % | 95.0 % | 93.0 % to 97.0 % | 95.0 % | 80 |")


def test_the_page_shows_slices_of_both_suites(report: Report) -> None:
    lines = section(to_markdown(report), "By slice")
    assert lines[0] == "| right, strict | items | merged | q8_0 | gptq-4bit |"
    assert lines[2:] == [
        "| one of several | 100 | 88.0 % | 89.0 % | 89.0 % |",
        "| 2 to 4 functions | 160 | 80.0 % | 80.6 % | 80.6 % |",
        "| no call | 80 | 92.5 % | 92.5 % | 92.5 % |",
        "| no call, 1 function | 20 | 100.0 % | 100.0 % | 100.0 % |",
    ]


def test_the_page_shows_variants_beside_the_suites_as_they_are(report: Report) -> None:
    assert "Variants" not in to_markdown(report)
    first = report.artifacts[0].model_dump()
    masked = {"calls": first["calls"] | {"strict_exact": 100}, "no_call": None}
    page = to_markdown(changed(report, artifacts=[first | {"variants": {"masked": masked}}]))
    lines = section(page, "Variants of the suites")
    assert "| q8_0 | as they are | 80.6 % | 83.1 % | 95.0 % | 93.0 % to 97.0 % | 92.5 % |" in lines
    assert "as they are" not in render_table(report)
    told = render_table(changed(report, artifacts=[first | {"variants": {"masked": masked}}]))
    assert ["masked", "62.5", "%", "83.1", "%"] in [line.split()[:5] for line in told.splitlines()]
    assert lines[-1] == "|  | masked | 62.5 % | 83.1 % | 95.0 % | 93.0 % to 97.0 % | – |"


def test_the_page_counts_errors_by_kind_and_calls_by_category(report: Report) -> None:
    page = to_markdown(report)
    assert "| malformed | 3 | 3 | 3 |" in section(page, "Errors by kind")
    assert "| Pydantic: missing | 5 | 5 | 5 |" in section(page, "Errors by kind")
    assert "| single | 100 | 88.0 % | 89.0 % | 89.0 % |" in section(page, "Exact calls by category")


def test_the_page_shows_fidelity_with_call_tokens_first_and_perplexity_beside_the_baselines(report: Report) -> None:
    lines = section(to_markdown(report), "Fidelity to the baseline")
    rows = [line for line in lines if line.startswith("| q8_0")]
    assert rows[0].startswith("| q8_0 | call | 2400 | 0.00210 | 0.00189 to 0.00231 | 2.10e-04 | 0.0189 | 99.4 % |")
    assert rows[0].endswith("| 6.10 | -0.200 | 0.930 | 0.910 to 0.950 |")
    assert rows[1].startswith("| q8_0 | prose |")
    assert rows[2] == "| q8_0 | 12.50 | 1.04× |"


def test_the_page_shows_times_as_multiples_of_the_baseline_and_marks_what_is_no_measure_of_speed(
    report: Report,
) -> None:
    lines = section(to_markdown(report), "Speed and size")
    assert "| q8_0 | llamacpp | 600 / 750 / 950 ms (0.50×) | 20.0 / 25.0 / 35.0 ms (0.50×) | 500 (2.00×) " in "".join(
        lines
    )
    assert "| gptq-4bit | torch | 2,400 / 3,000 / 3,800 ms (2.00×) † |" in "".join(lines)
    assert "| q8_0 | 0.610 s | 410 MB | 145 MB | 0.27× |" in lines
    assert lines[-1].startswith("† not representative for speed")


def test_the_page_says_what_ran(report: Report) -> None:
    page = to_markdown(report)
    assert "- gptq-4bit: 2 layers fell back to RTN" in section(page, "Notes")
    lines = section(page, "What ran")
    assert "- A Processor, x86_64, Linux: 2 cores, 16 GB of memory; fma avx2" in lines
    assert "- lf-export 0.1.0, torch 2.13.0" in lines
    assert "- suite calls: `shipped:suites/calls.jsonl` `cdcdcdcdcdcdcdcd`, 160 of 320 items" in lines
    assert "| gptq-4bit | gptq | W4A16 g64 | `abababababababab` | `efefefefefefefef` |" in lines


def test_sections_without_a_measurement_are_left_out(report: Report) -> None:
    page = to_markdown(changed(report, baseline=bare("merged").model_dump(), artifacts=[]))
    titles = [line for line in page.splitlines() if line.startswith("#")]
    assert titles == ["# quickstart: PASS", "## Speed and size", "## What ran"]


def test_an_artifact_named_with_a_bar_does_not_break_a_table(report: Report) -> None:
    value = report.model_dump()
    value["artifacts"][0]["name"] = "a|b"
    assert "| a\\|b | PASS |" in to_markdown(Report.model_validate(value))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, cells.NOTHING),
        (0.0, "0.00"),
        (0.00021, "2.10e-04"),
        (0.0123, "0.0123"),
        (12, "12.0"),
        (99.96, "100"),
        (250.4, "250"),
        (-1234.5, "-1,234"),
    ],
)
def test_numbers_are_shown_with_three_digits(value: float | None, text: str) -> None:
    assert cells.number(value) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, cells.NOTHING),
        (0, "0 B"),
        (999, "999 B"),
        (999_600, "1 MB"),
        (145_000_000, "145 MB"),
        (2_200_000_000, "2.2 GB"),
    ],
)
def test_bytes_are_shown_in_decimal_units(count: int | None, text: str) -> None:
    assert cells.size(count) == text


def test_rates_and_ratios_of_nothing_are_dashes() -> None:
    assert cells.rate(0, 0) == cells.NOTHING
    assert cells.rate(1, 3) == "33.3 %"
    assert cells.ratio(1.0, 0.0) == cells.NOTHING
    assert cells.ratio(None, 2.0) == cells.NOTHING
    assert cells.short(None) == cells.NOTHING
