"""What a finished step leaves beside its output, by which a later run knows that nothing has to be done again."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lf_export.provenance import digest_of
from lf_export.report.bom import BOM_NAME
from lf_export.report.card import CARD_NAME

_SUFFIX = ".step.json"
_ADDED = frozenset({CARD_NAME, BOM_NAME, "model.sig"})


def fingerprint(path: Path) -> list[tuple[str, int, int]]:
    """What identifies the content of a file or folder without reading it: (relative name, bytes, time of change).

    Hidden files and what a pending write has staged do not count.
    """
    if path.is_file():
        return [_entry(path, path.name)]
    entries = []
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        base = Path(folder)
        entries += [
            _entry(base / name, (base / name).relative_to(path).as_posix())
            for name in sorted(files)
            if not name.startswith(".")
        ]
    return entries


def _entry(path: Path, name: str) -> tuple[str, int, int]:
    status = path.stat()
    return name, status.st_size, status.st_mtime_ns


def step_digest(kind: str, options: Mapping[str, Any], inputs: Sequence[Any]) -> str:
    """The digest of a step: its kind, its options, and what identifies its inputs."""
    return digest_of({"kind": kind, "options": dict(options), "inputs": list(inputs)})


def record_path(output: Path) -> Path:
    """Where the record of the step that made `output` lies: beside it."""
    return output.with_name(output.name + _SUFFIX)


def is_done(output: Path, digest: str) -> bool:
    """Whether `output` is there, was made by the step of that digest, and has not been changed since.

    Its card does not count, a bench writes its results into it, and whoever ships it may edit it; nor do the bill of
    materials and the signature, which a release adds.
    """
    try:
        record = json.loads(record_path(output).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(record, dict) or record.get("digest") != digest or not output.exists():
        return False
    known = record.get("output")
    return isinstance(known, list) and _without_card(known) == _without_card(
        [list(each) for each in fingerprint(output)]
    )


def _without_card(entries: Sequence[Any]) -> list[Any]:
    return [entry for entry in entries if entry[0] not in _ADDED]


def is_ours(output: Path) -> bool:
    """Whether `output` was made by a recorded step, so that a changed recipe may replace it."""
    return record_path(output).is_file()


def claim(output: Path, digest: str) -> None:
    """Say, before `output` appears, that a step of ours makes it: a run killed in between may replace it."""
    _write(output, {"digest": digest, "output": None})


def record(output: Path, digest: str) -> None:
    """Say that `output` is finished."""
    _write(output, {"digest": digest, "output": fingerprint(output)})


def _write(output: Path, value: Mapping[str, Any]) -> None:
    """Written to a temporary name first, so that a record is whole or absent."""
    path = record_path(output)
    staged = path.with_name(f".{path.name}.staging")
    staged.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    staged.replace(path)
