"""Where a recipe's inputs lie: paths relative to the recipe, shipped files, and a base model that a script prepares."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from lf_export.calibration.suites import BFCL, HUB
from lf_export.errors import InputError, MissingError, StepError
from lf_export.recipe import BaseSource
from lf_export.shipped import shipped
from lf_export.steps.record import fingerprint

_SHIPPED = "shipped:"


def data_path(name: str, folder: Path | None = None) -> Path:
    """The file that `name` means: `shipped:FILE` ships with lf-export, else a path, relative to `folder`.

    Raises:
        InputError: there is no such file.
    """
    if name.startswith(_SHIPPED):
        return shipped("calibration", name.removeprefix(_SHIPPED))
    path = (folder or Path()) / name
    if not path.is_file():
        raise InputError(f"{path}: no such file", "files that ship with lf-export are named shipped:FILE")
    return path


def suite_source(name: str, folder: Path | None = None) -> str:
    """What `read_suite` takes for a suite's name: `bfcl:PATH` and files relative to `folder`, `hf:…` as it is.

    Raises:
        InputError: there is no such file or folder.
    """
    if name.startswith(HUB):
        return name
    if not name.startswith(BFCL):
        return str(data_path(name, folder))
    path = (folder or Path()) / name.removeprefix(BFCL)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder", "pip download --no-deps bfcl-eval")
    return f"{BFCL}{path}"


def suite_fingerprint(source: str) -> list[Any]:
    """What identifies the content of a suite without reading it; a dataset of the hub has its name alone."""
    return [source] if source.startswith(HUB) else [*fingerprint(Path(source.removeprefix(BFCL)))]


def shown_path(path: Path | str) -> str:
    """How a report names an input file: `shipped:FILE`, or the file's name: whoever reads it has other folders."""
    text = str(path)
    if text.startswith((_SHIPPED, HUB)):
        return text
    if text.startswith(BFCL):
        return f"{BFCL}{Path(text.removeprefix(BFCL)).name}"
    file, folder = Path(text).resolve(), shipped("calibration").resolve()
    return f"{_SHIPPED}{file.relative_to(folder).as_posix()}" if file.is_relative_to(folder) else file.name


def base_path(source: BaseSource, folder: Path, *, prepare: bool) -> Path | None:
    """The base model's folder. A script is run; with `prepare` off it is only asked where the folder would be.

    Returns:
        The folder; None where a script has not made it yet and `prepare` is off.

    Raises:
        InputError: no such folder or script, or a script outside the recipe's folder tree.
        StepError: the script failed, or did not print a folder.
    """
    if source.path is not None:
        path = (folder / source.path).resolve()
        if not path.is_dir():
            raise InputError(f"{path}: no such folder, expected the base model")
        return path
    script = _script(str(source.script), folder)
    command = [sys.executable, str(script), *([] if prepare else ["--where"])]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=None, text=True, env=environment)
    if done.returncode != 0:
        raise StepError(f"{script}: exit status {done.returncode}", "its own messages are above")
    printed = done.stdout.strip().splitlines()
    if not printed:
        raise StepError(f"{script}: printed nothing, expected the base model's folder as the last line")
    path = Path(printed[-1])
    if path.is_dir():
        return path
    if prepare:
        raise StepError(f"{script}: printed {printed[-1]!r}, which is not a folder")
    return None


def _script(name: str, folder: Path) -> Path:
    root = folder.resolve()
    script = (root / name).resolve()
    if not script.is_relative_to(root):
        raise InputError(f"{script}: outside the recipe's folder {root}, a recipe runs only scripts beside it")
    if not script.is_file():
        raise MissingError(f"{script}: no such script")
    return script
