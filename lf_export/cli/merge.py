"""`lf-export merge`: adapters into their base model."""

import math
from pathlib import Path
from typing import Any

import click

from lf_export.cli.options import FOLDER, json_option, out_option, overwrite_option, threads_option, wait_option


class _Weighted(click.ParamType[tuple[Path, float]]):
    """A folder, or a folder and a weight: PATH=0.7."""

    name = "path[=weight]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Path, float]:
        if isinstance(value, tuple):
            return value
        folder, equals, weight = str(value).rpartition("=")
        if not equals or Path(value).exists():
            return Path(value), 1.0
        try:
            number = float(weight)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            self.fail(f"{value!r}: a number was expected after the last '='", param, ctx)
        return Path(folder), number


@click.command(short_help="Adapters into their base model.")
@click.argument("base", type=FOLDER)
@click.argument("adapters", type=_Weighted(), nargs=-1, required=True)
@out_option
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    help="The merged model's dtype [default: the base's own].",
)
@click.option(
    "--combine",
    type=click.Choice(["in-order", "linear", "cat"]),
    default="in-order",
    show_default=True,
    help="Add each adapter after the other, or make one of them first, as PEFT's add_weighted_adapter does.",
)
@click.option(
    "--dequantize-base",
    is_flag=True,
    help="Merge into what the weights of a quantized BASE (GPTQ, AWQ, bitsandbytes NF4) stand for.",
)
@click.option(
    "--check-logits",
    is_flag=True,
    help="Compare the merged model's logits with those of BASE and ADAPTERS unmerged; two forward passes.",
)
@click.option(
    "--verify",
    is_flag=True,
    help="Write nothing: check that OUT is BASE with ADAPTERS, on sampled rows of every tensor and by its logits.",
)
@overwrite_option
@threads_option
@json_option
@wait_option
def merge(
    base: Path,
    adapters: tuple[tuple[Path, float], ...],
    out: Path,
    dtype: Any,
    combine: Any,
    dequantize_base: bool,
    check_logits: bool,
    verify: bool,
    overwrite: bool,
    threads: int,
    as_json: bool,
) -> None:
    """Merge ADAPTERS into BASE, in order, tensor by tensor.

    BASE is a Hugging Face folder with safetensors, each of ADAPTERS a PEFT folder, with a weight if it ends in
    =NUMBER. The result is bit-identical to PEFT's merge_and_unload in the same dtype.
    """
    from lf_export import api
    from lf_export.cli.output import emit
    from lf_export.cli.progress import shown

    if verify:
        from lf_export.steps.merge import MergeOptions, verify_model

        paths, weights = zip(*adapters, strict=True)
        options = MergeOptions(base, paths, out, dtype, overwrite, threads, weights, combine, dequantize_base)
        with shown():
            checked = verify_model(options)
        emit(checked, f"verified: {checked['tensors']} tensors, {checked['rows']} rows: {out}", as_json=as_json)
        return
    with shown():
        facts = api.merge(
            base,
            adapters,
            out,
            dtype=dtype,
            combine=combine,
            dequantize_base=dequantize_base,
            check_logits=check_logits,
            overwrite=overwrite,
            threads=threads,
        )
    emit(
        facts,
        f"merged: {len(facts['merge']['changed'])} tensors changed, {facts['merge']['copied']} copied: {out}",
        as_json=as_json,
    )
