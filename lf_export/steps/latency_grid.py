"""Batches of stated sizes and prompt lengths, timed in turn with the baseline's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lf_export.errors import ExportError, InputError, StepError
from lf_export.metrics.batch_latency import BatchRatios, Cell, Run, batch_ratios, batch_speed
from lf_export.metrics.energy import EnergyMeter
from lf_export.report.batches import BatchCell, BatchSpeed, LatencyGrid
from lf_export.report.latency import Ratio


@dataclass(frozen=True)
class Grid:
    """Every prompt length with every batch size.

    Attributes:
        prompt_lengths: tokens of each prompt.
        batch_sizes: prompts that are decoded together.
        new_tokens: tokens that are written to each.
        warmup: batches before each cell that do not count, one at least.
        repeats: batches of each cell that count.
    """

    prompt_lengths: Sequence[int]
    batch_sizes: Sequence[int]
    new_tokens: int = 32
    warmup: int = 1
    repeats: int = 5

    @property
    def cells(self) -> list[tuple[int, int]]:
        """(prompt length, batch size), in order."""
        return list(dict.fromkeys((length, size) for length in self.prompt_lengths for size in self.batch_sizes))

    def costs(self) -> dict[str, int]:
        """What one artifact takes with the baseline in turn: batches, prompt tokens, written tokens."""
        rounds = 2 * (self.warmup + self.repeats)
        rows = sum(size for _, size in self.cells)
        return {
            "batches": rounds * len(self.cells),
            "prompt_tokens": rounds * sum(length * size for length, size in self.cells),
            "written_tokens": rounds * rows * self.new_tokens,
        }

    def words(self) -> str:
        """What it costs, in words."""
        found = self.costs()
        lengths, sizes = (", ".join(map(str, each)) for each in (self.prompt_lengths, self.batch_sizes))
        return (
            f"prompts of {lengths} tokens in batches of {sizes}: for each artifact {found['batches']} batches with the "
            f"baseline in turn, {found['prompt_tokens']:,} prompt tokens and {found['written_tokens']:,} written ones"
        )


@dataclass(frozen=True)
class GridFound:
    """What was found for one artifact: its cells, the meter of energy, whether the baseline's process ended."""

    grid: Grid
    cells: Sequence[Cell]
    meter: EnergyMeter
    baseline_ended: bool = False


class Timed(Protocol):
    """What is timed."""

    def time_batch(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> tuple[float, ...]:
        """See `Session.time_batch`."""
        ...


def filled(prompts: Sequence[Sequence[int]], length: int, size: int, number: int) -> list[tuple[int, ...]]:
    """The batch `number`: `size` prompts of exactly `length` tokens, each a prompt and what follows it, cut there.

    Batches begin where the one before ended, so that repeats and rows read different texts.
    """
    found = []
    for row in range(size):
        place, ids = number * size + row, list[int]()
        while len(ids) < length:
            ids += prompts[place % len(prompts)]
            place += 1
        found.append(tuple(ids[:length]))
    return found


def time_grid(
    artifact: Timed, baseline: Timed | str, prompts: Sequence[Sequence[int]], grid: Grid, meter: EnergyMeter
) -> GridFound:
    """Time every cell; what one of them cannot do is a reason in its cell, not an error.

    Args:
        artifact: what is judged.
        baseline: what it is timed in turn with, or in words why it is timed alone.
        prompts: token ids of the suite's prompts, none of them empty.
        grid: the cells.
        meter: of the machine's energy.
    """
    found: list[Cell] = []
    over, opened = "", not isinstance(baseline, str)
    for length, size in grid.cells:
        if over:
            found.append(Cell(length, size, why=over))
            continue
        batches = [filled(prompts, length, size, number) for number in range(grid.warmup + grid.repeats)]
        cell, over, baseline = _cell(artifact, baseline, batches, grid, meter)
        found.append(cell)
    return GridFound(grid, found, meter, opened and isinstance(baseline, str))


def _cell(
    artifact: Timed,
    baseline: Timed | str,
    batches: Sequence[Sequence[Sequence[int]]],
    grid: Grid,
    meter: EnergyMeter,
) -> tuple[Cell, str, Timed | str]:
    """A cell; why no further one can be timed, or ""; what is left of the baseline."""
    length, size = len(batches[0][0]), len(batches[0])
    why = "" if not isinstance(baseline, str) else f"timed alone: {baseline}"
    other: Timed | None = None if isinstance(baseline, str) else baseline
    ours: list[Run] = []
    theirs: list[Run] = []
    for number, prompts in enumerate(batches):
        counts = number >= grid.warmup
        # A B, B A, A B, …: a steady drift of the machine meets both alike.
        order = ("baseline", "artifact") if number % 2 == grid.warmup % 2 else ("artifact", "baseline")
        for who in order:
            if who == "baseline" and other is None:
                continue
            try:
                run = _run(other if who == "baseline" and other else artifact, prompts, grid.new_tokens, meter)
            except ExportError as error:
                if who == "artifact":
                    lost = "" if isinstance(error, InputError) else _ended(error)
                    return Cell(length, size, why=lost or error.message), lost, baseline
                why, other, theirs = f"timed alone: the baseline cannot: {error.message}", None, []
                if isinstance(error, StepError):
                    baseline = _ended(error)
                continue
            if counts:
                (theirs if who == "baseline" else ours).append(run)
    return Cell(length, size, ours, theirs, why), "", baseline


def _ended(error: ExportError) -> str:
    return f"no further batch was timed: {error.message}"


def _run(timed: Timed, prompts: Sequence[Sequence[int]], new_tokens: int, meter: EnergyMeter) -> Run:
    before = meter.read()
    times = timed.time_batch(prompts, new_tokens)
    return Run(times, meter.joules(before, meter.read()))


def grid_part(found: GridFound) -> LatencyGrid:
    """As a part of the report."""
    grid = found.grid
    return LatencyGrid(
        new_tokens=grid.new_tokens,
        warmup=grid.warmup,
        repeats=grid.repeats,
        energy=found.meter.state,
        cells=[_part(cell) for cell in found.cells],
    )


def _part(cell: Cell) -> BatchCell:
    ratios = batch_ratios(cell)
    return BatchCell(
        prompt_length=cell.prompt_length,
        batch_size=cell.batch_size,
        why=cell.why,
        artifact=_speed(cell, cell.runs),
        baseline=_speed(cell, cell.baseline),
        artifact_times=[list(run.times) for run in cell.runs],
        baseline_times=[list(run.times) for run in cell.baseline],
        **({} if ratios is None else _ratios(ratios)),
    )


def _speed(cell: Cell, runs: Sequence[Run]) -> BatchSpeed | None:
    found = batch_speed(cell.prompt_length, cell.batch_size, runs)
    return None if found is None else BatchSpeed.model_validate(found)


def _ratios(found: BatchRatios) -> dict[str, Ratio | None]:
    named = {name: getattr(found, name) for name in ("ttft", "tpot", "end_to_end", "energy")}
    return {
        name: None if each.estimate != each.estimate else Ratio.model_validate(each) for name, each in named.items()
    }
