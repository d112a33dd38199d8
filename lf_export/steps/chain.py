"""Whether an artifact was made of the inputs that lie there: the digests in its manifest against theirs."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lf_export.checkpoint.digests import file_facts
from lf_export.errors import InputError
from lf_export.provenance import MANIFEST_NAME
from lf_export.steps.verify import Problem, Verified

_ARTIFACTS = ("model", "calibration", "imatrix")


def check_chain(results: Sequence[Verified], inputs: Sequence[Path], *, siblings: bool) -> None:
    """Compare each result's recorded inputs with the folders given, and with each other where they are of one run.

    Raises:
        InputError: a path that is not there, or that is the input of nothing that is checked.
    """
    used: set[Path] = set()
    for result in results:
        roles = dict(_roles(result.made))
        for path in inputs:
            if not path.exists():
                raise InputError(f"{path}: nothing is there, a folder or file that went in was expected")
            role = _role(path, roles)
            if role is not None:
                used.add(path)
                _compare(result, role, roles[role], path, {})
        if siblings:
            for other in results:
                if other.path.name == _SIBLINGS.get(result.kind, {}).get(other.kind):
                    role = {"merged": "model", "calibration": "calibration"}[other.kind]
                    if role in roles:
                        _compare(result, role, roles[role], other.path, other.found)
            if result.kind == "bench":
                _judged(result, results)
    if unused := [str(path) for path in inputs if path not in used]:
        raise InputError(f"{', '.join(unused)}: the input of nothing that was checked, by what it holds")


_MADE_OF = {"merged": "merged", "calibration": "calibration"}
_SIBLINGS = dict.fromkeys(("gptq", "awq", "gguf", "onnx"), _MADE_OF)


def _roles(made: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each input that a manifest names: (`base`, `adapter 1`, `model`, …, its recorded files)."""
    inputs = made.get("inputs")
    for role, facts in inputs.items() if isinstance(inputs, dict) else ():
        several = facts if isinstance(facts, list) else [facts]
        for number, each in enumerate(several, 1):
            if isinstance(each, dict) and isinstance(each.get("files"), dict):
                yield (f"{role.removesuffix('s')} {number}" if isinstance(facts, list) else role), each


def _role(path: Path, roles: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Which of the roles a path has, by what it holds; of several adapters the one of its name."""
    if path.is_file():
        wanted = [role for role, facts in roles.items() if path.name in facts["files"]]
    elif (path / "adapter_config.json").is_file():
        wanted = [role for role in roles if role.startswith("adapter")]
        named = [role for role in wanted if roles[role].get("name") == path.resolve().name]
        wanted = named or wanted
    elif (path / "calibration.json").is_file():
        wanted = [role for role in roles if role == "calibration"]
    else:
        wanted = [role for role in roles if role in {"base", "model"}]
    return wanted[0] if wanted else None


def _compare(
    result: Verified, role: str, facts: Mapping[str, Any], path: Path, known: Mapping[str, Mapping[str, Any]]
) -> None:
    result.inputs.append(role)
    root = path.parent if path.is_file() else path
    names = [path.name] if path.is_file() else facts["files"]
    for name in names:
        recorded = facts["files"][name]
        file = root / name
        if ".." in Path(name).parts or Path(name).is_absolute() or not isinstance(recorded, dict):
            result.problem("manifest", MANIFEST_NAME, f"{role}: {name!r} is no file of a folder")
        elif not file.is_file():
            result.problems.append(Problem("input", str(file), f"not there, {result.path} was made with it as {role}"))
        else:
            found = known.get(name) or file_facts(file)
            if found["sha256"] != recorded.get("sha256"):
                text = f"not the file that {result.path} was made of ({role}): {found['bytes']:,} bytes, another sha256"
                result.problems.append(Problem("input", str(file), text))


def _judged(result: Verified, results: Sequence[Verified]) -> None:
    """Whether a bench judged the artifacts that lie beside it now."""
    inputs = result.made.get("inputs")
    judged = inputs.get("artifacts") if isinstance(inputs, dict) else None
    for name, digest in judged.items() if isinstance(judged, dict) else ():
        for other in results:
            if other.path.name == name and other.made:
                result.inputs.append(name)
                if other.made.get("digest") != digest:
                    text = "the manifest is not that of the artifact that was judged: bench it again"
                    result.problems.append(Problem("input", str(other.path / MANIFEST_NAME), text))
