"""Batches are exactly as long as they are said to be, and what cannot be timed is named with its reason."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from lf_export.errors import InputError, StepError
from lf_export.metrics.energy import EnergyMeter
from lf_export.steps.latency_grid import Grid, filled, grid_part, time_grid

PROMPTS = [(1, 2, 3), (4, 5), (6, 7, 8, 9)]
GRID = Grid(prompt_lengths=(2, 6), batch_sizes=(1, 2), new_tokens=3, warmup=1, repeats=2)


@pytest.fixture
def meter(tmp_path: Path) -> EnergyMeter:
    return EnergyMeter(tmp_path)


class Machine:
    """Sessions that note what they are asked, refuse some batches, and die at others."""

    def __init__(self, log: list[str], name: str, refuses: int = 99, dies: int = 99) -> None:
        self.log, self.name, self.refuses, self.dies = log, name, refuses, dies

    def time_batch(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> tuple[float, ...]:
        """A second for each token of the batch."""
        self.log.append(f"{self.name}{len(prompts[0])}x{len(prompts)}")
        if len(prompts) >= self.dies:
            raise StepError("the child process ended with SIGKILL")
        if len(prompts) >= self.refuses:
            raise InputError(f"a batch of {len(prompts)}, one sequence at a time")
        return tuple(float(at + 1) for at in range(new_tokens))


def test_prompts_are_cut_and_filled_to_exactly_the_length_that_is_asked_for() -> None:
    assert filled(PROMPTS, 2, 2, 0) == [(1, 2), (4, 5)]
    assert filled(PROMPTS, 6, 2, 0) == [(1, 2, 3, 4, 5, 6), (4, 5, 6, 7, 8, 9)]
    assert filled(PROMPTS, 6, 2, 1) == [(6, 7, 8, 9, 1, 2), (1, 2, 3, 4, 5, 6)]  # goes on where the one before ended
    assert {len(each) for number in range(9) for each in filled(PROMPTS, 31, 3, number)} == {31}


def test_every_cell_is_timed_in_turn_after_a_warm_up(meter: EnergyMeter) -> None:
    log: list[str] = []
    found = time_grid(Machine(log, "B"), Machine(log, "A"), PROMPTS, GRID, meter)
    assert log[:6] == ["B2x1", "A2x1", "A2x1", "B2x1", "B2x1", "A2x1"]  # a warm-up of both, then A B, B A
    assert len(log) == 4 * 6 == GRID.costs()["batches"]
    part = grid_part(found)
    assert [(cell.prompt_length, cell.batch_size) for cell in part.cells] == [(2, 1), (2, 2), (6, 1), (6, 2)]
    assert [len(cell.artifact_times) for cell in part.cells] == [len(cell.baseline_times) for cell in part.cells]
    assert all(cell.ttft is not None and cell.ttft.estimate == 1 and not cell.why for cell in part.cells)
    assert part.energy == "not available"
    assert all(cell.energy is None for cell in part.cells)


def test_a_batch_that_the_runtime_cannot_do_is_named_and_the_others_are_timed(meter: EnergyMeter) -> None:
    found = time_grid(Machine([], "B", refuses=2), Machine([], "A"), PROMPTS, GRID, meter)
    assert [(cell.why, len(cell.runs)) for cell in found.cells] == [
        ("", 2),
        ("a batch of 2, one sequence at a time", 0),
        ("", 2),
        ("a batch of 2, one sequence at a time", 0),
    ]
    assert grid_part(found).cells[1].artifact is None


def test_a_baseline_that_cannot_leaves_the_artifact_timed_alone(meter: EnergyMeter) -> None:
    found = time_grid(Machine([], "B"), Machine([], "A", refuses=2), PROMPTS, GRID, meter)
    assert [(len(cell.runs), len(cell.baseline)) for cell in found.cells] == [(2, 2), (2, 0), (2, 2), (2, 0)]
    assert found.cells[1].why == "timed alone: the baseline cannot: a batch of 2, one sequence at a time"
    assert not found.baseline_ended


def test_a_process_that_ends_is_no_error_and_ends_the_timing(meter: EnergyMeter) -> None:
    log: list[str] = []
    found = time_grid(Machine(log, "B", dies=2), Machine(log, "A"), PROMPTS, GRID, meter)
    assert [len(cell.runs) for cell in found.cells] == [2, 0, 0, 0]
    assert {cell.why for cell in found.cells[1:]} == {
        "no further batch was timed: the child process ended with SIGKILL"
    }
    assert not any("6x" in each for each in log)


def test_a_baseline_that_ends_is_closed_and_the_rest_is_timed_alone(meter: EnergyMeter) -> None:
    found = time_grid(Machine([], "B"), Machine([], "A", dies=2), PROMPTS, GRID, meter)
    assert [(len(cell.runs), len(cell.baseline)) for cell in found.cells] == [(2, 2), (2, 0), (2, 0), (2, 0)]
    assert found.baseline_ended


def test_a_cell_is_timed_once_however_often_it_is_named() -> None:
    assert Grid(prompt_lengths=(2, 2), batch_sizes=(1,)).cells == [(2, 1)]


def test_what_it_costs_is_said_in_words() -> None:
    assert GRID.words() == (
        "prompts of 2, 6 tokens in batches of 1, 2: for each artifact 24 batches with the baseline in turn, "
        "144 prompt tokens and 108 written ones"
    )
