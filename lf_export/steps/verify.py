"""Whether what lies on disk is what was made: every file of an artifact, its manifest, and the chain back to inputs."""

import json
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from lf_export.checkpoint.digests import FileFacts, file_facts, listed, where_changed
from lf_export.checkpoint.index import read_object
from lf_export.errors import InputError
from lf_export.progress import stage
from lf_export.provenance import MANIFEST_NAME, MANIFEST_SCHEMA, sealed_text
from lf_export.report.bom import BOM_NAME, is_sealed
from lf_export.report.card import CARD_NAME, is_untouched
from lf_export.steps.sign import SIGNATURE_NAME, Trust, check_signature

_STEP_RECORD = ".step.json"
_GIT = (".git", ".github", ".gitattributes", ".gitignore")
# What `model_signing` never signs either; whoever uploads a folder has them.


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        kind: `changed`, `missing`, `additional`, `link`, `manifest`, `input`, `signature` or `weights`.
        file: its path.
        text: what is wrong with it.
    """

    kind: str
    file: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}: {self.kind}: {self.text}"


@dataclass
class Verified:
    """What was found in one folder.

    Attributes:
        path: the folder.
        kind: of the artifact, as its manifest says.
        files: how many files were read.
        nbytes: their bytes.
        signature: `valid`, `not checked` (no key was given) or `none`.
        problems: what is wrong.
        notes: what was not checked, and why.
        inputs: the names of the inputs that were compared.
    """

    path: Path
    kind: str = "unknown"
    files: int = 0
    nbytes: int = 0
    signature: str = "none"
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    made: Mapping[str, Any] = field(default_factory=dict, repr=False)
    found: dict[str, FileFacts] = field(default_factory=dict, repr=False)

    def problem(self, kind: str, name: str, text: str) -> None:
        """Note something that is wrong with the file `name` of the folder."""
        self.problems.append(Problem(kind, str(self.path / name), text))

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "path": str(self.path),
            "kind": self.kind,
            "ok": not self.problems,
            "files": self.files,
            "bytes": self.nbytes,
            "signature": self.signature,
            "inputs": self.inputs,
            "problems": [{"kind": each.kind, "file": each.file, "text": each.text} for each in self.problems],
            "notes": self.notes,
        }


def artifact_folders(path: Path) -> list[Path]:
    """The folders to check in `path`: itself where it has a manifest, else those of a run.

    Raises:
        InputError: nothing of ours is there.
    """
    if path.is_file() and path.name == MANIFEST_NAME:
        path = path.parent
    if not path.is_dir():
        raise InputError(f"{path}: {'not a folder' if path.exists() else 'nothing is there'}, an artifact was expected")
    if (path / MANIFEST_NAME).exists() or (path / MANIFEST_NAME).is_symlink():
        return [path]
    inside = [each for each in sorted(path.iterdir()) if each.is_dir() and not each.name.startswith(".")]
    known = {each.name.removesuffix(_STEP_RECORD) for each in path.glob(f"*{_STEP_RECORD}")}
    found = [each for each in inside if (each / MANIFEST_NAME).exists() or each.name in known]
    if not found:
        raise InputError(
            f"{path}: no {MANIFEST_NAME} in it and in no folder of it",
            "give what lf-export has made: a merged, calibration, artifact, bench or run folder",
        )
    return found


def verify_folder(path: Path, trust: Trust | None = None) -> Verified:
    """Check one folder by its manifest: every file's size and sha256, nothing missing, nothing more.

    Args:
        path: the folder.
        trust: whose signature is believed; None: a signature is named and not checked.

    Raises:
        InputError: a key or certificate in `trust` cannot be used.
        MissingError: there is something to verify with, and model-signing is not installed.
    """
    result = Verified(path)
    there = dict(listed(path))
    result.made = _manifest(path, result)
    result.kind = str(result.made.get("kind", "unknown"))
    recorded = _recorded(result)
    _check_files(path, recorded, there, result)
    own = _check_signature(path, there, trust, result)
    for name, status in there.items():
        if name in recorded or name == MANIFEST_NAME:
            continue
        if stat.S_ISLNK(status.st_mode):
            result.problem("link", name, "a symbolic link, only files were written")
        elif name == CARD_NAME and result.kind not in {"merged", "calibration", "bench"}:
            _check_card(path, own, result)
        elif name == BOM_NAME:
            _check_bom(path, own, result)
        elif name == SIGNATURE_NAME:
            continue
        elif name.split("/")[0] in _GIT:
            result.notes.append(f"{name}: not covered by the manifest, nor by a signature")
        else:
            result.problem("additional", name, "not in the manifest")
    return result


def _manifest(path: Path, result: Verified) -> Mapping[str, Any]:
    """The manifest; empty where it is not there or does not read, which is noted."""
    file = path / MANIFEST_NAME
    if file.is_symlink() or not file.is_file():
        result.problem(
            "link" if file.is_symlink() else "missing", MANIFEST_NAME, "a regular file with the manifest was expected"
        )
        return {}
    try:
        made = read_object(file)
        text = file.read_text(encoding="utf-8")
    except InputError as error:
        result.problem("manifest", MANIFEST_NAME, error.message.removeprefix(f"{file}").lstrip(":0123456789 "))
        return {}
    schema = made.get("schema")
    if schema != MANIFEST_SCHEMA:
        result.problem(
            "manifest",
            MANIFEST_NAME,
            f"schema {json.dumps(schema)}, {MANIFEST_SCHEMA} was expected: make it again, or take the version of "
            "lf-export that made it",
        )
        return {}
    try:
        whole = sealed_text(made) == text
    except (ValueError, RecursionError):
        whole = False
    if not whole:
        result.problem("changed", MANIFEST_NAME, "its own digest is another: the manifest was changed")
    return made


def _recorded(result: Verified) -> dict[str, FileFacts]:
    """The files that the manifest names, of those whose names and digests are ones."""
    files = result.made.get("files")
    if not isinstance(files, dict):
        if result.made:
            result.problem("manifest", MANIFEST_NAME, "no 'files' in it")
        return {}
    found = {}
    for name, facts in files.items():
        pure = PurePosixPath(name)
        if not name or "\0" in name or "\\" in name or pure.is_absolute() or ".." in pure.parts:
            result.problem("manifest", MANIFEST_NAME, f"the file {name!r} would lie outside the folder")
        elif not (
            isinstance(facts, dict)
            and isinstance(facts.get("sha256"), str)
            and type(facts.get("bytes")) is int
            and facts["bytes"] >= 0
        ):
            result.problem("manifest", MANIFEST_NAME, f"no size and sha256 of {name!r}")
        else:
            found[pure.as_posix()] = facts
    return found


def _check_files(path: Path, recorded: Mapping[str, FileFacts], there: Mapping[str, Any], result: Verified) -> None:
    with stage(f"verify {path.name}", sum(facts["bytes"] for facts in recorded.values()), "B") as advance:
        for name, facts in recorded.items():
            if name not in there:
                linked = any(parent.as_posix() in there for parent in PurePosixPath(name).parents)
                result.problem(
                    "link" if linked else "missing", name, "in a folder that is a link" if linked else "not there"
                )
                continue
            mode = there[name].st_mode
            if not stat.S_ISREG(mode):
                kind = "link" if stat.S_ISLNK(mode) else "changed"
                result.problem(kind, name, "a symbolic link" if stat.S_ISLNK(mode) else "not a regular file")
                continue
            result.files += 1
            if there[name].st_size != facts["bytes"]:
                result.problem("changed", name, where_changed(path / name, facts))
                continue
            found = file_facts(path / name)
            result.found[name] = found
            result.nbytes += found["bytes"]
            if found["sha256"] != facts["sha256"]:
                result.problem("changed", name, where_changed(path / name, facts))
            advance(facts["bytes"], name)


def _check_card(path: Path, signed: bool, result: Verified) -> None:
    """A card seals itself: a bench writes its results into it, and whoever edits it signs for that."""
    try:
        untouched = is_untouched((path / CARD_NAME).read_bytes().decode("utf-8"))
    except (OSError, UnicodeDecodeError):
        untouched = False
    if not untouched and signed:
        result.notes.append(f"{CARD_NAME}: edited, and signed so")
    elif not untouched:
        result.problem("changed", CARD_NAME, "edited since lf-export wrote it, and no checked signature covers it")


def _check_bom(path: Path, signed: bool, result: Verified) -> None:
    try:
        whole = is_sealed((path / BOM_NAME).read_bytes().decode("utf-8"))
    except (OSError, UnicodeDecodeError):
        whole = False
    if not whole and not signed:
        result.problem("changed", BOM_NAME, "not as lf-export wrote it: its serial number is that of other content")


def _check_signature(path: Path, there: Mapping[str, Any], trust: Trust | None, result: Verified) -> bool:
    """Whether there is a signature that was checked and holds."""
    if SIGNATURE_NAME not in there:
        if trust is not None:
            result.problem("signature", SIGNATURE_NAME, "not there, and a key to check it with was given")
        return False
    if trust is None:
        result.signature = "not checked"
        result.notes.append(f"{SIGNATURE_NAME}: not checked, no key was given (--public-key or --certificate-chain)")
        return False
    wrong = check_signature(path, trust)
    result.signature = "invalid" if wrong else "valid"
    for line in wrong:
        result.problem("signature", SIGNATURE_NAME, line)
    return not wrong


def results_text(results: Sequence[Verified]) -> str:
    """What was checked, a line for each folder, and what was not."""
    lines = []
    for each in results:
        signed = {"none": "not signed", "valid": "signature valid", "not checked": "signature not checked"}
        state = "ok" if not each.problems else f"{len(each.problems)} problems"
        chain = f", inputs compared: {', '.join(each.inputs)}" if each.inputs else ""
        lines.append(
            f"{each.path}: {state}: {each.kind}, {each.files} files, {each.nbytes:,} bytes, "
            f"{signed.get(each.signature, each.signature)}{chain}"
        )
        lines += [f"  note: {note}" for note in each.notes]
    return "\n".join(lines)


def problems_of(results: Sequence[Verified]) -> Iterator[str]:
    """Every problem of every folder, a line each."""
    for each in results:
        yield from map(str, each.problems)
