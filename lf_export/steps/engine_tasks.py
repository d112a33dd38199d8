"""The tasks of a run: each runs by itself, in another process, perhaps on another machine."""

from pathlib import Path
from typing import Any

from lf_export.checkpoint.index import open_checkpoint
from lf_export.steps.inputs import calibration_inputs
from lf_export.steps.quantize import TargetPlan, quantize_targets


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


def measure_one(**arguments: Any) -> Any:
    """Measure one artifact against the baseline's logits; returns what was `Measured`."""
    from lf_export.steps.measure import measure  # noqa: PLC0415 - heavy

    return measure(**arguments, advance=_silent)


def _silent(*_: object) -> None:
    """Progress is shown by whoever gave the task."""
