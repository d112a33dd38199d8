"""`lf-export quantize`: one pass over the calibration data, all formats."""

from pathlib import Path
from typing import Any

import click

from lf_export.cli.options import (
    FILE,
    FOLDER,
    json_option,
    memory_option,
    out_option,
    overwrite_option,
    threads_option,
    wait_option,
)


@click.command(short_help="One pass over the data, every format.")
@click.argument("model", type=FOLDER)
@click.option(
    "--format",
    "formats",
    multiple=True,
    required=True,
    metavar="FORMAT[:SCHEME]",
    help="gptq, gptq:8, gptq:4.25 (an average), awq, gguf:Q4_K_M, onnx:int4, …; several share one pass over the data.",
)
@out_option
@click.option(
    "--calibration", type=FOLDER, help="A folder that `lf-export calibrate -o` wrote [default: shipped data]."
)
@click.option("--dialect", default="chat-template", show_default=True, help="The dialect of the shipped data.")
@click.option(
    "--num-samples", type=click.IntRange(min=1), default=128, show_default=True, help="Shipped conversations."
)
@click.option(
    "--group-size", default="auto", show_default=True, help="gptq, awq: columns that share a scale, -1 or auto."
)
@click.option("--sym/--asym", default=True, show_default=True, help="gptq: symmetric or asymmetric grid.")
@click.option("--desc-act", is_flag=True, help="gptq: store groups in activation order (slower at run time).")
@click.option(
    "--gguf-method",
    type=click.Choice(["gptq", "imatrix", "rtn"]),
    default="gptq",
    show_default=True,
    help="gguf: errors fed back through the moments, weighed by the importance matrix alone, or no calibration.",
)
@click.option(
    "--tensor-type",
    "tensor_types",
    multiple=True,
    metavar="PATTERN=TYPE",
    help="gguf: the type of tensors by a glob over their names, such as '*.ffn_down=Q8_0'; the last that matches wins.",
)
@click.option("--split-max-size", metavar="SIZE", help="gguf: split files whose tensors take more, such as 2G.")
@click.option(
    "--imatrix", type=FILE, help="gguf: an importance matrix (GGUF or .dat) [default: that of the calibration pass]."
)
@click.option("--seed", type=int, default=0, show_default=True, help="The seed of the selection of shipped data.")
@overwrite_option
@threads_option
@memory_option
@json_option
@wait_option
def quantize(
    model: Path,
    formats: tuple[str, ...],
    out: Path,
    calibration: Path | None,
    dialect: str,
    num_samples: int,
    group_size: str,
    sym: bool,
    desc_act: bool,
    gguf_method: Any,
    tensor_types: tuple[str, ...],
    split_max_size: str | None,
    imatrix: Path | None,
    seed: int,
    overwrite: bool,
    threads: int,
    memory: int | None,
    as_json: bool,
) -> None:
    """Quantize MODEL to every FORMAT in one streamed pass.

    With one FORMAT the artifact is OUT itself, with several each is a folder in OUT. A run that was interrupted goes on
    at the layer where it stopped.
    """
    from lf_export import api
    from lf_export.cli.output import emit
    from lf_export.cli.progress import shown
    from lf_export.walk.budget import parse_size

    try:
        size: Any = group_size if group_size == "auto" else int(group_size)
    except ValueError as error:
        raise click.BadParameter("expected a number of columns, -1 or auto", param_hint="--group-size") from error
    if split_max_size:
        try:
            parse_size(split_max_size)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--split-max-size") from error
    typed = [_override(text) for text in tensor_types]
    with shown():
        facts = api.quantize(
            model,
            formats,
            out,
            calibration=calibration,
            dialect=dialect,
            num_samples=num_samples,
            group_size=size,
            sym=sym,
            desc_act=desc_act,
            gguf_method=gguf_method,
            tensor_types=typed,
            split_max_size=split_max_size,
            imatrix=imatrix,
            seed=seed,
            overwrite=overwrite,
            threads=threads,
            memory=memory,
        )
    emit(facts, "\n".join(f"{path}" for path in facts["artifacts"]), as_json=as_json)


def _override(text: str) -> tuple[str, str]:
    pattern, found, kind = text.rpartition("=")
    if not found or not pattern or not kind:
        raise click.BadParameter(
            f"{text!r}: expected PATTERN=TYPE, such as '*.ffn_down=Q8_0'", param_hint="--tensor-type"
        )
    return pattern, kind
