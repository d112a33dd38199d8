"""Options that several commands share."""

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import click

F = TypeVar("F", bound=Callable[..., Any])

FOLDER = click.Path(path_type=Path)
"""A path argument; whether it exists is checked by the step, with its own message and exit status."""


FILE = click.Path(path_type=Path)
"""Likewise for a file."""


def threads_option(command: F) -> F:
    """Add `--threads`; set before torch or llama.cpp are loaded."""
    return click.option(
        "--threads",
        type=click.IntRange(min=1),
        envvar="LF_EXPORT_THREADS",
        show_envvar=True,
        callback=_set_threads,
        help="Threads to compute with [default: the cores that this process may use].",
    )(command)


def _set_threads(_context: click.Context, _parameter: click.Parameter, value: int | None) -> int:
    threads = value or len(os.sched_getaffinity(0))
    # OpenMP reads its setting once, when the first library loads it. The user's own setting is respected.
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    return threads


def memory_option(command: F) -> F:
    """Add `--memory`, in bytes or None."""
    return click.option(
        "--memory",
        metavar="SIZE",
        envvar="LF_EXPORT_MEMORY",
        show_envvar=True,
        callback=_size,
        help="What quantizing may take in all, such as 4GB; activations that do not fit lie on disk "
        "[default: a quarter of what is available, for activations].",
    )(command)


def _size(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    from lf_export.walk.budget import parse_size

    try:
        return parse_size(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def json_option(command: F) -> F:
    """Add `--json`: the result as JSON on standard output, for pipelines."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")(command)


def set_option(command: F) -> F:
    """Add `--set KEY=VALUE`, several times: values in place of the recipe's own."""
    return click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="A value instead of the recipe's, such as base.path=models/base or gate.margin=0.03; VALUE is YAML, paths "
        "are relative to the working folder. May be given several times.",
    )(command)


def margin_option(command: F) -> F:
    """Add `--margin`."""
    return click.option(
        "--margin",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        default=0.05,
        show_default=True,
        help="The largest loss that is accepted, as a share of items.",
    )(command)


def overwrite_option(command: F) -> F:
    """Add `--overwrite`."""
    return click.option("--overwrite", is_flag=True, help="Replace an output that exists.")(command)


def wait_option(command: F) -> F:
    """Add `--wait`; the command runs inside `waiting` where it is given."""

    @click.option(
        "--wait",
        is_flag=True,
        help="Wait while another run writes the output [default: end with an error that names it].",
    )
    @wraps(command)
    def run(*arguments: Any, wait: bool, **keywords: Any) -> Any:
        if not wait:
            return command(*arguments, **keywords)
        from lf_export.checkpoint.lock import waiting

        with waiting():
            return command(*arguments, **keywords)

    return cast("F", run)


def out_option(command: F) -> F:
    """Add the required `-o / --out` folder."""
    return click.option("-o", "--out", type=FOLDER, required=True, help="The folder to make; must not exist.")(command)
