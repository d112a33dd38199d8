"""The report on disk: `report.json`, which is the report, and `report.md`, which is a view of it."""

import json
from pathlib import Path

from pydantic import ValidationError

from lf_export.errors import InputError, StepError
from lf_export.report.markdown import to_markdown
from lf_export.report.model import Report

JSON_NAME = "report.json"
MARKDOWN_NAME = "report.md"


def write_report(report: Report, folder: Path) -> tuple[Path, Path]:
    """Write `report.json` and `report.md` into `folder`, which is made where it is not there.

    Law: `read_report(write_report(report, folder)[0]) == report`. A file is replaced as a whole or not at all.

    Raises:
        StepError: the folder cannot be written.
    """
    paths = (folder / JSON_NAME, folder / MARKDOWN_NAME)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in zip(paths, (to_json(report), to_markdown(report)), strict=True):
            staged = path.with_name(f".{path.name}.staging")
            staged.write_text(text, encoding="utf-8")
            staged.replace(path)
    except OSError as error:
        raise StepError(f"{folder}: the report cannot be written: {error.strerror or error}") from error
    return paths


def read_report(path: Path) -> Report:
    """The report in the JSON file `path`.

    Raises:
        InputError: the file is not there, or is not a report of this schema version; every mistake is named.
    """
    try:
        return Report.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: the report cannot be read: {error.strerror or error}") from error
    except ValidationError as error:
        problems = [f"{path}: {'.'.join(map(str, each['loc'])) or 'report'}: {each['msg']}" for each in error.errors()]
        raise InputError.of(problems, hint="the schema is docs/reference/report.schema.json") from error


def to_json(report: Report) -> str:
    """The report as indented JSON with a line end."""
    return report.model_dump_json(indent=1) + "\n"


def schema_text() -> str:
    """The JSON Schema of `report.json`, as it stands in the reference."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Report.model_json_schema(mode="serialization"),
    }
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"
