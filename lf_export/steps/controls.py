"""Controls: artifacts whose verdict is known beforehand, judged in the same run to see that the run can tell."""

from collections.abc import Mapping
from pathlib import Path

from lf_export.checkpoint.index import open_checkpoint
from lf_export.errors import InputError
from lf_export.formats import FORMATS
from lf_export.report.model import ArtifactReport, ControlResult, Expected

# The baseline against itself; 8 bits, which harm nothing; 2 bits without calibration, which harm everything.
CONTROLS: Mapping[str, Expected] = {"control-self": "no flips", "control-q8_0": "PASS", "control-q2_k": "FAIL"}


def make_controls(baseline: Path, folder: Path, threads: int) -> dict[str, Path]:
    """The controls by name; GGUF files of the baseline are written into `folder`.

    Raises:
        InputError: the baseline's architecture has no GGUF.
        MissingError: the `gguf` extra is not installed.
    """
    gguf, types = FORMATS["gguf"], ("Q8_0", "Q2_K")
    folder.mkdir()
    options = gguf.options.model_validate({"types": types, "method": "rtn", "threads": threads, "name": "control"})
    gguf.open(open_checkpoint(baseline), folder, options, "").finish()
    files = {f"control-{kind.lower()}": folder / f"control-{kind}.gguf" for kind in types}
    return {"control-self": baseline, **files}


def check_names(artifacts: Mapping[str, object]) -> None:
    """Refuse artifacts that have a control's name.

    Raises:
        InputError: names them.
    """
    if taken := sorted(CONTROLS.keys() & artifacts.keys()):
        raise InputError(f"an artifact is named {taken[0]!r}, which is a control's name", "give it another name")


def judged_control(part: ArtifactReport) -> ArtifactReport:
    """The report on a control with what was expected of it, and whether that came out."""
    expected, gate = CONTROLS[part.name], part.gate
    if gate is None:
        met = False
    elif expected == "no flips":
        judged = sum(endpoint.n for endpoint in gate.endpoints)
        flips = sum(endpoint.lost + endpoint.gained for endpoint in gate.endpoints)
        met = judged > 0 and flips == 0 and not gate.problems
    else:
        met = gate.verdict == expected
    return part.model_copy(update={"path": "", "control": ControlResult(expected=expected, met=met)})
