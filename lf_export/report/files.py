"""The report on disk: `report.json`, which is the report, and its views: `report.md`, `junit.xml` and `report.html`."""

import json
from pathlib import Path

from pydantic import ValidationError

from lf_export.errors import InputError, StepError
from lf_export.report.html import to_html
from lf_export.report.junit import to_junit
from lf_export.report.markdown import to_markdown
from lf_export.report.model import Report

JSON_NAME = "report.json"
MARKDOWN_NAME = "report.md"
JUNIT_NAME = "junit.xml"
HTML_NAME = "report.html"


def write_report(report: Report, folder: Path) -> tuple[Path, ...]:
    """Write `report.json`, `report.md` and `junit.xml` into `folder`, which is made where it is not there.

    Law: `read_report(write_report(report, folder)[0]) == report`. A file is replaced as a whole or not at all.

    Raises:
        StepError: the folder cannot be written.
    """
    views = {JSON_NAME: to_json, MARKDOWN_NAME: to_markdown, JUNIT_NAME: to_junit}
    return tuple(_write(folder / name, view(report)) for name, view in views.items())


def write_html(report: Report, path: Path) -> Path:
    """Write the report as one self-contained page to `path`; a file there is replaced as a whole or not at all.

    Raises:
        StepError: the file cannot be written.
    """
    return _write(path, to_html(report))


def _write(path: Path, text: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(f".{path.name}.staging")
        staged.write_text(text, encoding="utf-8")
        staged.replace(path)
    except OSError as error:
        raise StepError(f"{path.parent}: the report cannot be written: {error.strerror or error}") from error
    return path


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
