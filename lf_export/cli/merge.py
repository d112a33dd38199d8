"""`lf-export merge`: adapters into their base model."""

from pathlib import Path

import click

from lf_export.cli.options import FOLDER, json_option, out_option, overwrite_option, threads_option


@click.command(short_help="Adapters into their base model.")
@click.argument("base", type=FOLDER)
@click.argument("adapters", type=FOLDER, nargs=-1, required=True)
@out_option
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    help="The merged model's dtype [default: the base's own].",
)
@overwrite_option
@threads_option
@json_option
def merge(
    base: Path, adapters: tuple[Path, ...], out: Path, dtype: str | None, overwrite: bool, threads: int, as_json: bool
) -> None:
    """Merge ADAPTERS into BASE, in order, tensor by tensor.

    BASE is a Hugging Face folder with safetensors, each of ADAPTERS a PEFT folder. The result is bit-identical to
    PEFT's merge_and_unload in the same dtype.
    """
    from lf_export.cli.output import emit
    from lf_export.cli.progress import shown
    from lf_export.steps.merge import MergeOptions, merge_model

    with shown():
        facts = merge_model(MergeOptions(base, adapters, out, dtype, overwrite, threads))
    emit(
        facts,
        f"merged: {len(facts['merge']['changed'])} tensors changed, {facts['merge']['copied']} copied: {out}",
        as_json=as_json,
    )
