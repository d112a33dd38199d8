"""Bills of materials beside the artifacts that they are about."""

from pathlib import Path

from lf_export.errors import InputError
from lf_export.provenance import MANIFEST_NAME, read_manifest
from lf_export.report.bom import BOM_NAME, bom_text
from lf_export.report.files import JSON_NAME, read_report

_WITHOUT = frozenset({"calibration", "bench"})


def write_bom(path: Path, report: Path | None = None) -> Path:
    """Write the bill of materials of the artifact in `path`; one that is there is replaced.

    Args:
        path: a merged or quantized folder.
        report: the bench's folder or its report.json; its figures are taken where it judged an artifact of that name
            and, as its manifest says, that very artifact.

    Returns:
        The file.

    Raises:
        InputError: no artifact of ours is there, or the report does not read, or is about another one.
        MissingError: the CycloneDX library is not installed.
    """
    made = read_manifest(path)
    if made is None or made["kind"] in _WITHOUT:
        raise InputError(f"{path}: no {MANIFEST_NAME} of a merged or quantized model in it")
    name = path.resolve().name
    found = results = None
    if report is not None:
        file = report / JSON_NAME if report.is_dir() else report
        found = read_report(file)
        results = next((each for each in found.everyone if each.name == name), None)
        judged = ((read_manifest(file.parent) or {}).get("inputs") or {}).get("artifacts") or {}
        if results is None or judged.get(name, made.get("digest")) != made.get("digest"):
            raise InputError(f"{file}: is not about the artifact {name!r} as it is now", "bench it again")
    text = bom_text(name, made, results, found)
    staged = path / f".{BOM_NAME}.staging"
    staged.write_text(text, encoding="utf-8")
    return staged.replace(path / BOM_NAME)
