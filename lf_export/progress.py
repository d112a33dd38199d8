"""Progress of long work: the packages below the command line say what they do, the command line shows it.

A library function wraps its loop in `stage`; without a reporter nothing is shown. `lf_export.cli` installs a
reporter that draws bars in a terminal and plain lines in a pipe.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class Stage(Protocol):
    """One piece of long work that is under way."""

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Say that `amount` more units are done; `note` is a short text beside the bar."""


class Reporter(Protocol):
    """Where progress is shown."""

    def start(self, title: str, total: float, unit: str) -> Stage:
        """Begin a stage of `total` units."""

    def finish(self, stage: Stage) -> None:
        """End a stage."""

    def say(self, line: str) -> None:
        """Show a line of text above the bars."""


class _Silent:
    """The reporter that shows nothing."""

    def start(self, title: str, total: float, unit: str) -> Stage:  # noqa: ARG002
        return self

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Ignore it."""

    def finish(self, stage: Stage) -> None:
        """Ignore it."""

    def say(self, line: str) -> None:
        """Ignore it."""


_current: ContextVar[Reporter] = ContextVar("lf_export_reporter", default=_Silent())  # noqa: B039


@contextmanager
def reporting(reporter: Reporter) -> Iterator[None]:
    """Show the progress of everything inside the block on `reporter`."""
    token = _current.set(reporter)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def stage(title: str, total: float, unit: str) -> Iterator[Callable[..., None]]:
    """Announce a piece of long work; yields `advance(amount=1, note="")`."""
    reporter = _current.get()
    running = reporter.start(title, total, unit)
    try:
        yield running.advance
    finally:
        reporter.finish(running)


def say(line: str) -> None:
    """Show a line of text to the user, above any bars."""
    _current.get().say(line)
