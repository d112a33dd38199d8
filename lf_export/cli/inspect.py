"""`lf-export inspect`: what a path holds."""

from pathlib import Path

import click

from lf_export.cli.options import FOLDER, json_option


@click.command(short_help="What a path holds.")
@click.argument("path", type=FOLDER)
@json_option
def inspect(path: Path, as_json: bool) -> None:
    """Say what PATH is: a checkpoint, an adapter, an artifact or a GGUF file.

    Architecture, parameters, dtypes, quantization, size, chat template, licence, manifest. Reads headers only.
    """
    from lf_export.cli.output import emit
    from lf_export.steps.inspect import facts_text, inspect_path

    facts = inspect_path(path)
    emit(facts, facts_text(facts), as_json=as_json)
