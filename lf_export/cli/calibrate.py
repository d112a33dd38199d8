"""`lf-export calibrate`: what the quantizers will see, and its audit."""

from pathlib import Path

import click

from lf_export.cli.options import FOLDER, json_option, overwrite_option, wait_option


@click.command(short_help="Render, mix and audit calibration data.")
@click.argument("model", type=FOLDER)
@click.option("--calls", multiple=True, metavar="FILE", help="Function-call conversations [default: those that ship].")
@click.option(
    "--chat", multiple=True, metavar="FILE", help="Conversations without functions [default: those that ship]."
)
@click.option(
    "--dialect", default="chat-template", show_default=True, help="llama-functions or chat-template: as it was trained."
)
@click.option(
    "--call-share",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="The share of tokens from function-call conversations.",
)
@click.option(
    "--num-samples", type=click.IntRange(min=1), default=128, show_default=True, help="Conversations at most."
)
@click.option(
    "--max-seq-length",
    type=click.IntRange(min=16),
    default=2048,
    show_default=True,
    help="Longer conversations are dropped by name, never cut.",
)
@click.option(
    "--allow-dropped",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="The share of call tokens that may be lost with dropped conversations.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="The seed of the selection.")
@click.option("-o", "--out", type=FOLDER, help="Write the calibration set to this folder.")
@overwrite_option
@json_option
@wait_option
def calibrate(
    model: Path,
    calls: tuple[str, ...],
    chat: tuple[str, ...],
    dialect: str,
    call_share: float,
    num_samples: int,
    max_seq_length: int,
    allow_dropped: float,
    seed: int,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Render, mix and audit calibration data for MODEL.

    Prints how many call tokens survive, per class, and how many functions are covered. Exit status 3 when call
    tokens are lost.
    """
    from lf_export.cli.output import emit
    from lf_export.cli.progress import shown
    from lf_export.steps.calibrate import CalibrateOptions, audit_text, calibrate_model

    options = CalibrateOptions(
        model=model,
        calls=calls,
        chat=chat,
        dialect=dialect,
        call_share=call_share,
        num_samples=num_samples,
        max_seq_length=max_seq_length,
        seed=seed,
        allow_dropped=allow_dropped,
        out=out,
        overwrite=overwrite,
    )
    with shown():
        calibration = calibrate_model(options)
    text, facts = audit_text(calibration)
    emit(facts, text, as_json=as_json)
