"""Batches in the views: their ratios with intervals, why a cell is empty, what is slower in the summary."""

from typing import Any

from lf_export.report import Report
from lf_export.report.html import to_html
from lf_export.report.markdown import to_markdown
from lf_export.report.table import render_table

SLOWER = "slower than the baseline: each further token takes 1.25 times as long (1.10 to 1.50)"


def speed(size: int) -> dict[str, Any]:
    times = {"p50": 0.1, "p90": 0.2, "p99": 0.3}
    return {
        "ttft": times,
        "tpot": times,
        "prefill_tokens_per_second": 1280.0 * size,
        "decode_tokens_per_second": 10.0 * size,
        "tokens_per_second": 9.0 * size,
        "joules": 64.0,
        "joules_per_token": 2.5,
    }


def with_batches(report: Report, energy: str = "measured") -> Report:
    ratio = {"estimate": 1.25, "lower": 1.1, "upper": 1.5}
    timed = {"prompt_length": 128, "batch_size": 4, "artifact": speed(4), "baseline": speed(4)}
    cells = [
        timed | dict.fromkeys(("ttft", "tpot", "end_to_end"), ratio),
        {"prompt_length": 512, "batch_size": 4, "why": "512 tokens and 32 more do not fit the model's context of 512"},
        {"prompt_length": 512, "batch_size": 9, "why": "a batch of 9 <script>"},
    ]
    plain = report.model_dump(mode="json")
    grid = {"new_tokens": 32, "warmup": 1, "repeats": 5, "energy": energy, "cells": cells}
    plain["artifacts"][0] |= {"latency_grid": grid, "slower": [SLOWER], "peak_gpu_bytes": 3_000_000_000}
    return Report.model_validate(plain)


def test_a_cell_has_times_speeds_ratios_and_energy(report: Report) -> None:
    found = with_batches(report)
    times = "100 / 200 / 300"
    line = (
        f"| q8_0 | 128 × 4 | {times} | {times} | 5,120 | 40.0 | 36.0 | 1.25 (1.10 to 1.50) | 1.25 (1.10 to 1.50) | "  # noqa: RUF001 - a sign of multiplication
        "1.25 (1.10 to 1.50) | 2.50 |"
    )
    assert line in to_markdown(found)
    page = to_html(found)
    assert '<td class="n">5,120</td>' in page
    assert "q8_0 · 128 × 4, TTFT: 1.25 (1.10 to 1.50) of the baseline" in page  # noqa: RUF001 - a chart's mark says it


def test_a_cell_that_was_not_timed_says_why(report: Report) -> None:
    said = "q8_0, 512 × 4: 512 tokens and 32 more do not fit the model's context of 512"  # noqa: RUF001 - as above
    assert f"- {said}" in to_markdown(with_batches(report))
    page = to_html(with_batches(report))
    assert said.replace("'", "&#39;") in page
    assert "a batch of 9 &lt;script&gt;" in page


def test_energy_that_was_not_read_says_so(report: Report) -> None:
    for energy, words in (("not readable", "not readable for this user"), ("not available", "shows no counters")):
        assert words in to_markdown(with_batches(report, energy))
        assert words in to_html(with_batches(report, energy))


def test_what_is_slower_stands_in_the_summary_of_every_view(report: Report) -> None:
    found = with_batches(report)
    assert f"q8_0: {SLOWER}" in render_table(found)
    summary = to_markdown(found).split("## ", 1)[0]
    assert f"- **q8_0**: {SLOWER}" in summary
    verdict = to_html(found).split('<section id="trade-offs"', 1)[0]
    assert f"<strong>q8_0</strong>: {SLOWER}" in verdict
    assert "slower than" not in to_markdown(report).split("## ", 1)[0]


def test_memory_of_a_gpu_is_shown_where_one_was_used(report: Report) -> None:
    assert "| q8_0 | 3 GB |" in to_markdown(with_batches(report))
    assert "GPU 3 GB" in to_html(with_batches(report))
    assert "GPU" not in to_markdown(report)
