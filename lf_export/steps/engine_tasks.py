"""The tasks of a run: each runs by itself, in another process, perhaps on another machine."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lf_export.checkpoint.index import open_checkpoint
from lf_export.functions.dialects import Dialect
from lf_export.progress import say
from lf_export.steps.engine import Cluster, Task
from lf_export.steps.inputs import calibration_inputs
from lf_export.steps.measure import Measured, measure
from lf_export.steps.quantize import TargetPlan, quantize_targets
from lf_export.steps.workload import Workload


def quantized_apart(
    merged: Path,
    calibration: Path,
    plans: Sequence[TargetPlan],
    memory: Mapping[str, int | None],
    threads: int,
    budget: int | None,
    cluster: Cluster,
) -> Iterator[str]:
    """Make each target as a task with a walk of its own; its name as soon as it is made.

    `memory` is the bytes of memory that each target needs in all, `budget` those that its activations may take.

    Raises:
        ExportError: what a task raised.
        StepError: a task's worker was lost again and again, or no machine has room for it.
    """
    shared: dict[str, Any] = {"merged": str(merged.absolute()), "calibration": str(calibration.absolute())}
    shared |= {"threads": threads, "memory": budget}
    tasks = [
        Task(
            plan.name, quantize_one, {**shared, "plan": replace(plan, out=plan.out.absolute())}, threads,
            memory[plan.name],
        )
        for plan in plans
    ]  # fmt: skip
    for task, out in cluster.results(tasks):
        say(f"{task.name}: {out}")
        yield task.name


def measured_apart(
    paths: Mapping[str, Path],
    runtimes: Mapping[str, str],
    workload: Workload,
    dialect: Dialect,
    threads: int,
    scratch: Path,
    cluster: Cluster,
) -> dict[str, Measured]:
    """What tasks found out about every artifact; the baseline's logits lie in the folder `logits` of `scratch`."""
    folder = scratch.absolute()
    shared = {"workload": workload, "dialect": dialect, "threads": threads, "is_baseline": False}
    shared |= {"workdir": folder, "baseline_logits": folder / "logits"}
    tasks = [
        Task(name, measure_one, {**shared, "path": path.absolute(), "runtime": runtimes[name]}, threads)
        for name, path in paths.items()
    ]
    found = {task.name: each for task, each in cluster.results(tasks)}
    for each in found.values():
        each.notes.append("measured beside others on a cluster: its times do not compare with the baseline's")
    return found


def quantize_one(merged: str, calibration: str, plan: TargetPlan, threads: int, memory: int | None) -> str:
    """Make one target with a walk of its own; returns its folder.

    A worker that takes over from a lost one goes on at the layer where that was: the journal lies beside the target.
    """
    from lf_export.calibration.build import CalibrationSet  # noqa: PLC0415 - heavy

    quantize_targets(
        open_checkpoint(Path(merged)),
        [plan],
        CalibrationSet.load(Path(calibration)),
        calibration_files=calibration_inputs(Path(calibration)),
        overwrite=True,
        threads=threads,
        memory=memory,
    )
    return str(plan.out)


def measure_one(**arguments: Any) -> Measured:
    """Measure one artifact against the baseline's logits; returns what was found out."""
    return measure(**arguments, advance=_silent)


def _silent(*_: object) -> None:
    """Progress is shown by whoever gave the task."""
