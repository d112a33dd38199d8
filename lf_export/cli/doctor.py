"""`lf-export doctor`: what works on this machine."""

import click

from lf_export.cli.options import json_option


@click.command(short_help="What works on this machine, and what enables the rest.")
@click.option(
    "--require",
    "required",
    multiple=True,
    metavar="PART",
    help="Try only the core and this part, and exit with 4 where it does not work; may be given again.",
)
@json_option
def doctor(required: tuple[str, ...], as_json: bool) -> None:
    """Try every format, runtime and extra, and say which command enables what does not work.

    A PART is named as in the list, such as gguf; runtime:onnx where a format has the same name. Each is tried in a
    process of its own. The exit status is 4 where the core does not work, or a PART that is required.
    """
    from lf_export.cli.output import emit
    from lf_export.steps.doctor import check_works, chosen_parts, doctor_text, examine

    facts = examine(chosen_parts(required))
    emit(facts, doctor_text(facts), as_json=as_json)
    check_works(facts, core_alone=not required)
