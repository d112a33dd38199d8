"""Options of `bench` that time batches of stated sizes and prompt lengths."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])

_POSITIVE = click.IntRange(min=1)
_OPTIONS = (
    click.option(
        "--prompt-lengths",
        metavar="TOKENS",
        help="Time batches of prompts of exactly so many tokens too, such as 128,512, in turn with the baseline.",
    ),
    click.option("--batch-sizes", default="1,4", show_default=True, help="With --prompt-lengths: prompts together."),
    click.option(
        "--new-tokens",
        type=click.IntRange(min=2),
        default=32,
        show_default=True,
        help="With --prompt-lengths: tokens written to each prompt.",
    ),
    click.option(
        "--warmup", type=_POSITIVE, default=1, show_default=True, help="With --prompt-lengths: batches not counted."
    ),
    click.option(
        "--repeats", type=_POSITIVE, default=5, show_default=True, help="With --prompt-lengths: batches that count."
    ),
)


def speed_options(command: _F) -> _F:
    """Add the options."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def chosen(given: dict[str, Any]) -> dict[str, Any]:
    """What these options say, as arguments of `lf_export.bench`."""
    lengths = given["prompt_lengths"]
    return given | {
        "prompt_lengths": None if lengths is None else counts(lengths, "--prompt-lengths", 1 << 20),
        "batch_sizes": counts(given["batch_sizes"], "--batch-sizes"),
    }


def counts(text: str, option: str, most: int = 1024) -> tuple[int, ...]:
    """Numbers that commas divide, each from 1 to `most`.

    Raises:
        click.BadParameter: they are something else.
    """
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1 or max(found) > most:
        raise click.BadParameter(f"{text!r}: expected numbers from 1 to {most} such as 1,4,16", param_hint=option)
    return found
