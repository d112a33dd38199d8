"""A plan says what each step costs, and what the whole needs."""

from pathlib import Path

import pytest

from lf_export.steps.plan import Step, as_facts, bytes_text, seconds_text, table, totals


def _step(name: str, *, done: bool = False, writes: int | None = 10, memory: int | None = 5, scratch: int = 0) -> Step:
    return Step(name, Path("out") / name, "d", done, 1, writes, memory, scratch)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (538_090_408, "538 MB"), (2_200_000_000, "2.2 GB"), (None, "-")],
)
def test_bytes_are_read_by_people(count: int | None, text: str) -> None:
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.2, "0 s"), (89, "89 s"), (95, "2 min"), (12_000, "3 h 20 min"), (50_000, "14 h")],
)
def test_times_are_read_by_people(seconds: float | None, text: str) -> None:
    assert seconds_text(seconds) == text


def test_only_what_is_still_to_do_is_counted() -> None:
    steps = [_step("a", done=True, writes=1000), _step("b", memory=7), _step("c", scratch=3)]
    assert totals(steps) == {"steps_to_do": 2, "disk": 23, "peak_memory": 7}


def test_what_is_not_known_is_not_guessed() -> None:
    assert totals([_step("a", writes=None)]) == {"steps_to_do": 1, "disk": None, "peak_memory": None}


def test_the_table_and_the_facts_name_every_step() -> None:
    steps = [_step("merged", done=True), _step("bench")]
    text = table(steps)
    assert "merged" in text
    assert "still to do: 1 of 2 steps" in text
    assert [step["name"] for step in as_facts(steps)["steps"]] == ["merged", "bench"]
