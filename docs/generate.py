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
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from lf_export import recipe
from lf_export.cli import app
from lf_export.report import schema_text

REFERENCE = Path(__file__).resolve().parent / "reference"
_RECIPE_HEAD = """\
A recipe is a YAML file. Unknown keys are errors, and all mistakes are reported at once with file and line.
Paths are relative to the recipe, except `output`, which is relative to the folder the command starts in.
"""
_NOTE = "<!-- made by docs/generate.py: change the code, then run `make docs` -->\n"


def cli_page() -> str:
    """Every command's help page, as a terminal of 100 columns shows it."""
    parts = [_NOTE, "# The command line\n"]
    context = click.Context(app, info_name="lf-export", terminal_width=100)
    for name in ("", *app.commands):
        command: click.Command = app.commands[name] if name else app
        inner = click.Context(command, info_name=name, parent=context, terminal_width=100) if name else context
        parts += [f"## lf-export {name}".rstrip() + "\n", "```text", command.get_help(inner), "```\n"]
    return "\n".join(parts)


def recipe_page() -> str:
    """Every key of a recipe: its type, its default, what it is for."""
    parts = [
        _NOTE,
        "# Recipes\n",
        _RECIPE_HEAD,
    ]
    for title, model in _sections():
        parts += [
            f"## {title}\n",
            f"{(model.__doc__ or '').strip()}\n",
            "| key | type | default | |",
            "|---|---|---|---|",
        ]
        parts += [_row(name, field) for name, field in model.model_fields.items()]
        parts.append("")
    return "\n".join(parts)


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
        default = "" if field.default in {None, PydanticUndefined} else f"`{_plain(field.default)}`"
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
        REFERENCE / "report.schema.json": schema_text(),
        measured.ROOT / "README.md": measured.readme(),
        measured.ROOT / "docs" / "explanation" / "gate.md": measured.gate(),
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
