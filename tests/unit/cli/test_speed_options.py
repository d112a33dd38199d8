"""What `lf-export bench` reads about batches."""

from typing import Any

import click
import pytest
from click.testing import CliRunner

from lf_export.cli.speed import chosen, speed_options


def options(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    @click.command()
    @speed_options
    def command(**given: Any) -> None:
        found.update(chosen(given))

    ended = CliRunner().invoke(command, arguments)
    if ended.exit_code:
        raise click.ClickException(ended.output)
    return found


def test_without_lengths_no_batch_is_timed() -> None:
    assert options()["prompt_lengths"] is None


def test_lengths_and_sizes_are_numbers_that_commas_divide() -> None:
    given = ("--prompt-lengths", "128,2048", "--batch-sizes", "1, 4", "--new-tokens", "8", "--warmup", "2")
    assert options(*given, "--repeats", "7") == {
        "prompt_lengths": (128, 2048),
        "batch_sizes": (1, 4),
        "new_tokens": 8,
        "warmup": 2,
        "repeats": 7,
    }


@pytest.mark.parametrize("wrong", ["", "a", "0", "128,", "-1", "1 2"])
def test_what_is_no_number_is_refused(wrong: str) -> None:
    with pytest.raises(click.ClickException, match="expected numbers from 1 to"):
        options("--prompt-lengths", wrong)
    with pytest.raises(click.ClickException, match="expected numbers from 1 to 1024"):
        options("--prompt-lengths", "8", "--batch-sizes", wrong)
