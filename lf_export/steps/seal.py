"""The manifest of a bench, which is written when its figures are safe, and again when its page is there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lf_export.checkpoint.digests import file_facts
from lf_export.errors import ExportError
from lf_export.provenance import MANIFEST_NAME, read_manifest, write_manifest
from lf_export.report.files import HTML_NAME, JSON_NAME, JUNIT_NAME, MARKDOWN_NAME

_FILES = (JSON_NAME, MARKDOWN_NAME, JUNIT_NAME, HTML_NAME)


def bench_files(folder: Path) -> dict[str, Any]:
    """The digests of a bench's report and its views, as far as they are there."""
    return {name: file_facts(folder / name) for name in _FILES if (folder / name).is_file()}


def bench_inputs(artifacts: Mapping[str, Path], baseline: Path) -> dict[str, Any]:
    """The digests of the manifests of what was judged, where they have one; the suites' are in the report."""
    judged = {name: _digest(path) for name, path in artifacts.items()}
    return {
        "artifacts": {name: digest for name, digest in judged.items() if digest},
        "baseline": _digest(baseline),
    }


def _digest(path: Path) -> str | None:
    try:
        return (read_manifest(path if path.is_dir() else path.parent) or {}).get("digest")
    except ExportError:
        return None  # what is wrong with it is said where it is judged


def seal_page(folder: Path) -> None:
    """Take a page that was made again into the manifest of its bench, where it has one."""
    if not (folder / MANIFEST_NAME).is_file():
        return
    made = read_manifest(folder)
    if made is not None and made["kind"] == "bench":
        write_manifest(folder, made | {"files": bench_files(folder)})
