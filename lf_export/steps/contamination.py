"""Does a suite show functions that an artifact was calibrated on? Then it says nothing about others."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lf_export.calibration.suites import EvalItem
from lf_export.errors import InputError
from lf_export.functions.spec import schema_hash
from lf_export.provenance import read_manifest

_SHOWN = 5


def check_contamination(
    artifacts: Mapping[str, Path], suites: Mapping[str, Sequence[EvalItem]], allowed: Iterable[str] = ()
) -> dict[str, list[str]]:
    """Refuse suites that show a function of an artifact's calibration, compared by schema.

    The manifest of an artifact holds the hashes of all functions that its calibration showed; names of functions as
    they are written, descriptions and order do not enter the hash. An artifact without a manifest, or one that was not
    calibrated, has nothing to compare.

    Args:
        artifacts: the artifacts by name.
        suites: the items of each suite by its name (`calls`, `no-call`).
        allowed: names that are allowed all the same: of functions, or of whole suites.

    Returns:
        For each artifact a sentence for each suite that was allowed, for its notes.

    Raises:
        InputError: every other function, a line each, at most 5 of an artifact and suite.
    """
    names = set(allowed)
    problems: list[str] = []
    notes: dict[str, list[str]] = {}
    calibrated = {artifact: seen for artifact, path in artifacts.items() if (seen := calibrated_on(path))}
    shown = {
        suite: {schema_hash(spec): spec.name for item in items for spec in item.functions}
        for suite, items in (suites if calibrated else {}).items()
    }
    for artifact, seen in calibrated.items():
        for suite, functions in shown.items():
            shared = sorted(name for found, name in functions.items() if found in seen)
            refused = [] if suite in names else [name for name in shared if name not in names]
            problems += [
                f"{artifact}: was calibrated on the function {name!r}, which the suite {suite} shows"
                for name in refused[:_SHOWN]
            ]
            if len(refused) > _SHOWN:
                problems.append(f"{artifact}: and on {len(refused) - _SHOWN} more of the suite {suite}")
            if shared and not refused:
                note = f"was calibrated on {len(shared)} functions of the suite {suite}, as allowed"
                notes.setdefault(artifact, []).append(note)
    if problems:
        raise InputError.of(problems, "another suite, or --allow-contaminated FUNCTION (or calls, no-call) for each")
    return notes


def calibrated_on(artifact: Path) -> frozenset[str]:
    """The hashes of the functions that an artifact's calibration showed, by its manifest; empty where it has none."""
    made = read_manifest(artifact if artifact.is_dir() else artifact.parent) or {}
    calibration = made.get("calibration")
    schemas = calibration.get("schemas") if isinstance(calibration, Mapping) else None
    return frozenset(map(str, schemas)) if isinstance(schemas, list) else frozenset()
