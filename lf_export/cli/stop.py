"""Signals that stop a command: it ends as Ctrl-C does, with what it has begun cleared away or kept to go on with."""

import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

_STOPS = ("SIGTERM", "SIGHUP")


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise a KeyboardInterrupt in the block.

    A signal that is ignored (`nohup`) or has a handler keeps it. After the first one no more of them count, so that
    clearing away is not interrupted; Ctrl-C still does.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in _STOPS if hasattr(signal, name)]
    taken = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]

    def stop(number: int, _frame: FrameType | None) -> None:
        for each in taken:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt(signal.Signals(number).name)

    for number in taken:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def show_stopped(error: BaseException) -> None:
    """Say what stopped the command, what is kept, and how to go on."""
    cause = error if isinstance(error, KeyboardInterrupt) else error.__cause__ or error  # Click wraps it
    by = f" by {cause.args[0]}" if cause.args else ""
    what = f"interrupted{by}; what was finished stays"
    click.echo(f"error: {what}", err=True)
    for note in getattr(cause, "__notes__", []):
        click.echo(note, err=True)
    command = shlex.join(sys.argv[1:])
    how = f"run the same command again to go on: lf-export {command}"
    click.echo(f"hint: {how}", err=True)
