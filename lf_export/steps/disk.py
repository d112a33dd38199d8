"""Whether what a step will write fits and replaces nothing of others, known before it starts."""

import os
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from lf_export.errors import InputError, StepError
from lf_export.steps.plan import Step, bytes_text
from lf_export.steps.record import is_ours


def check_disk(needed: Mapping[Path, int]) -> None:
    """Refuse before anything is written.

    Args:
        needed: outputs, which may not exist yet, and the bytes that each takes; those of one file system are added up.

    Raises:
        StepError: they do not fit.
    """
    wanted: Counter[int] = Counter()
    places: dict[int, tuple[Path, Path]] = {}
    for out, count in needed.items():
        place = Path(os.path.abspath(out))  # noqa: PTH100 (resolve would fail where a link is broken)
        while not place.exists():
            place = place.parent
        device = place.stat().st_dev
        wanted[device] += count
        places.setdefault(device, (out, place))
    for device, count in wanted.items():
        out, place = places[device]
        free = shutil.disk_usage(place).free
        if count > free:
            raise StepError(
                f"{out}: needs {bytes_text(count)} of disk, {bytes_text(free)} are free",
                "free some space, or choose another output",
            )


def check_outputs(steps: Mapping[str, Step]) -> None:
    """Refuse where a folder that no step of ours made would be replaced.

    Raises:
        InputError: there is one; all are named.
    """
    problems = [
        f"{step.output}: exists and was not made by this recipe"
        for step in steps.values()
        if not step.done and step.output.exists() and not is_ours(step.output)
    ]
    if problems:
        raise InputError.of(problems, "move it away, or choose another output")
