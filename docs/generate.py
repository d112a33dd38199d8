"""Write the reference pages that are made from the code; `--check` says whether they are up to date."""

import argparse
import difflib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
import measured
import studied
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from lf_export import manifest_keys, recipe
from lf_export.cli import app
from lf_export.errors import InputError, MissingError, StepError
from lf_export.metrics.gate import Verdict, exit_status
from lf_export.report import Report, schema_text

REFERENCE = Path(__file__).resolve().parent / "reference"
_RECIPE_HEAD = """\
A recipe is a YAML file. Unknown keys are errors, and all mistakes are reported at once with file and line.
Paths are relative to the recipe, except `output`, which is relative to the folder the command starts in.
"""
_REPORT_HEAD = """\
`report.json`, which `bench` and `run` write and print with `--json`. Its [JSON Schema](report.schema.json) is made of
the same types.
A field that was not measured is `null`, or its default.
"""
_EXIT_TAIL = """\
`merge`, `calibrate`, `quantize`, `inspect` and `recipe` give no verdict. `run` of a recipe with
`bench: null` leaves with 0.
What to do at each: [Put it into a release pipeline](../how-to/release-pipeline.md).
"""
_MANIFEST_HEAD = """\
`lf-export.json` in each folder that lf-export makes. It is JSON with sorted keys; a run that was interrupted and went
on writes the same bytes as one that was not, so there are no times in it.
"""
_MANIFEST_TAIL = """\
`files` names what was there when the artifact was made. The card (`README.md`) is not among them: a bench writes its
results into it, and whoever ships it may edit it. A GGUF's `Modelfile` and, where a calibration pass made one,
`imatrix.gguf` are. `baseline-answers` is what a bench keeps of the merged model for other runs.

`lf-export verify` checks a folder against its manifest, `lf-export inspect` shows its facts;
[the model card](../how-to/read-a-report.md) shows the part that people ask for.
"""
_NOTE = "<!-- made by docs/generate.py: change the code, then run `make docs` -->\n"


def cli_page() -> str:
    """Every command's help page, as a terminal of 100 columns shows it."""
    parts = [_NOTE, "# The command line\n"]
    for name, context in _commands(app, click.Context(app, info_name="lf-export", terminal_width=100)):
        parts += [f"## {name}\n", "```text", context.command.get_help(context), "```\n"]
    return "\n".join(parts)


def _commands(command: click.Command, context: click.Context) -> Iterator[tuple[str, click.Context]]:
    """A command and those under it, each with the name that one types."""
    yield context.command_path, context
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _commands(inner, click.Context(inner, info_name=name, parent=context, terminal_width=100))


def recipe_page() -> str:
    """Every key of a recipe: its type, its default, what it is for."""
    parts = [
        _NOTE,
        "# Recipes\n",
        _RECIPE_HEAD,
    ]
    for title, model in _sections():
        parts += _table(title, model)
    return "\n".join(parts)


def report_page() -> str:
    """Every key of report.json."""
    parts = [_NOTE, "# The report\n", _REPORT_HEAD]
    for model in _parts(Report):
        parts += _table(model.__name__, model)
    return "\n".join(parts)


def exit_page() -> str:
    """Every exit status and what it means, from the classes of errors and the verdicts."""
    rows = [(0, "done; where there is a gate, its verdict is PASS"), (1, "a bug of ours, with its traceback")]
    rows += [(2, "a wrong command line")]
    rows += [(kind.status, _summary(kind)) for kind in (InputError, MissingError, StepError)]
    rows += [
        (exit_status(verdict), f"the gate's verdict is {verdict}") for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE)
    ]
    lines = [f"| {status} | {meaning} |" for status, meaning in rows]
    return "\n".join([_NOTE, "# Exit statuses\n", "| status | meaning |", "|---|---|", *lines, "", _EXIT_TAIL])


def manifest_page() -> str:
    """Every key of a manifest, and the kinds that have it."""
    every, artifacts = set(manifest_keys.KINDS), set(manifest_keys.ARTIFACTS)
    rows = ["| key | in | what it holds |", "|---|---|---|"]
    for name, key in manifest_keys.KEYS.items():
        having = [f"`{kind}`" for kind in key.kinds if kind not in artifacts or not artifacts <= set(key.kinds)]
        having += ["artifacts"] if artifacts <= set(key.kinds) else []
        rows.append(f"| `{name}` | {'all' if set(key.kinds) == every else ', '.join(having)} | {key.text} |")
    kinds, made = (", ".join(f"`{kind}`" for kind in each) for each in (manifest_keys.KINDS, manifest_keys.ARTIFACTS))
    shown = f"A manifest's `kind` is one of {kinds}. Artifacts are {made}.\n"
    return "\n".join([_NOTE, "# The manifest\n", _MANIFEST_HEAD, *rows, "", shown, _MANIFEST_TAIL])


def _summary(kind: type[Exception]) -> str:
    """The first sentence of a class, without its status in brackets."""
    text = (kind.__doc__ or "").strip().split("\n")[0].partition(" (exit status")[0].rstrip(".")
    return text[:1].lower() + text[1:]


def _parts(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A model and every one that its fields hold, each once."""
    waiting, seen = [model], {model}
    while waiting:
        each = waiting.pop(0)
        yield each
        for field in each.model_fields.values():
            for inner in _models(field.annotation):
                if inner not in seen:
                    seen.add(inner)
                    waiting.append(inner)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _table(title: str, model: type[BaseModel]) -> list[str]:
    rows = [_row(name, field) for name, field in model.model_fields.items()]
    head = ["| key | type | default | |", "|---|---|---|---|"]
    return [f"## {title}\n", f"{(model.__doc__ or '').strip()}\n", *head, *rows, ""]


def _sections() -> Iterator[tuple[str, type[BaseModel]]]:
    yield "The recipe", recipe.Recipe
    yield "base", recipe.BaseSource
    yield "adapters", recipe.AdapterSource
    yield "merge", recipe.MergeRecipe
    yield "calibration", recipe.CalibrationRecipe
    yield "quantize.NAME, format: gptq", recipe.GptqTarget
    yield "quantize.NAME.overrides.PATTERN, format: gptq", recipe.LinearOverride
    yield "quantize.NAME, format: awq", recipe.AwqTarget
    yield "quantize.NAME, format: gguf", recipe.GgufTarget
    yield "quantize.NAME, format: onnx", recipe.OnnxTarget
    yield "bench", recipe.BenchRecipe
    yield "bench.calls, bench.no_call, bench.chat", recipe.SuiteRecipe
    yield "bench.latency", recipe.LatencyRecipe
    yield "bench.endpoints.NAME", recipe.EndpointRecipe
    yield "gate", recipe.GateRecipe
    yield "sign", recipe.SignRecipe


def _row(name: str, field: FieldInfo) -> str:
    if field.is_required():
        default = "required"
    elif field.default_factory is not None:
        default = "see below" if isinstance(_made(field), BaseModel) else f"`{_plain(_made(field))}`"
    elif isinstance(field.default, BaseModel):
        default = "see below" if name in {"merge", "calibration", "gate"} else f"`{_plain(field.default)}`"
    else:
        default = "" if field.default is None or field.default is PydanticUndefined else f"`{_plain(field.default)}`"
    return f"| `{name}` | {_type(field.annotation)} | {default} | {field.description or ''} |"


def _made(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True, validated_data={})


def _plain(value: Any) -> str:
    if isinstance(value, BaseModel):
        return str(value.model_dump(exclude_none=True))
    return {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return ", ".join(f"`{argument}`" for argument in arguments)
    if origin in {Union, UnionType}:
        return " or ".join(_type(argument) for argument in arguments if argument is not NoneType)
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"{_type(arguments[0])} → {_type(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping"
    return {str: "text", int: "integer", float: "number", bool: "true or false"}.get(annotation, str(annotation))


def pages() -> dict[Path, str]:
    """Every generated page and its text."""
    return {
        REFERENCE / "cli.md": cli_page(),
        REFERENCE / "recipe.md": recipe_page(),
        REFERENCE / "report.md": report_page(),
        REFERENCE / "exit-status.md": exit_page(),
        REFERENCE / "manifest.md": manifest_page(),
        REFERENCE / "recipe.schema.json": recipe.schema_text(),
        measured.ROOT / "recipes" / "recipe.schema.json": recipe.schema_text(),
        REFERENCE / "report.schema.json": schema_text(),
        measured.ROOT / "README.md": measured.readme(),
        measured.ROOT / "docs" / "explanation" / "gate.md": measured.gate(),
        studied.PAGE: studied.study(),
        studied.GGUF_PAGE: studied.gguf(),
    }


def main() -> None:
    """Write the pages, or with `--check` exit with 1 where one is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit with 1 where a page is out of date")
    check = parser.parse_args().check
    stale = False
    for path, text in pages().items():
        if not check:
            path.write_text(text, encoding="utf-8")
            continue
        found = path.read_text(encoding="utf-8") if path.is_file() else ""
        if found != text:
            stale = True
            lines = difflib.unified_diff(found.splitlines(), text.splitlines(), str(path), "generated", lineterm="")
            print("\n".join(list(lines)[:40]))
    if stale:
        sys.exit("error: generated pages are out of date\nhint: make docs")


if __name__ == "__main__":
    main()
