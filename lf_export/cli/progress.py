"""Progress on standard error: bars in a terminal, plain lines in a pipe."""

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lf_export.progress import Stage, reporting

_LINE_EVERY_SECONDS = 15.0


@contextmanager
def shown() -> Iterator[None]:
    """Show the progress of the block."""
    # Where torchao is installed (gptqmodel brings it), Transformers imports it, and it complains of kernels for other
    # machines.
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=Console(stderr=True), refresh_per_second=4) as bars, reporting(_Bars(bars)):
            yield
    else:
        with reporting(_Lines()):
            yield


def _readable(unit: str) -> tuple[float, str]:
    """What to divide by, and the unit that is shown: bytes are shown as megabytes."""
    return (1e6, "MB") if unit == "B" else (1, unit)


class _Bar:
    """One bar."""

    def __init__(self, bars: Any, title: str, total: float, unit: str) -> None:
        self.scale, shown_unit = _readable(unit)
        self.bars = bars
        self.task = bars.add_task(title, total=round(total / self.scale), unit=shown_unit, note="")

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Move the bar."""
        self.bars.update(self.task, advance=amount / self.scale, **({"note": note} if note else {}))


class _Bars:
    """A reporter that draws bars with rich."""

    def __init__(self, bars: Any) -> None:
        self._bars = bars

    def start(self, title: str, total: float, unit: str) -> Stage:
        """Add a bar."""
        return _Bar(self._bars, title, total, unit)

    def finish(self, stage: Stage) -> None:
        """Leave the bar where it stands, and stop its clock."""
        if isinstance(stage, _Bar):
            self._bars.stop_task(stage.task)

    def say(self, line: str) -> None:
        """Print above the bars."""
        self._bars.console.print(line, markup=False, highlight=False)


class _Line:
    """A stage that prints a line now and then."""

    def __init__(self, title: str, total: float, unit: str) -> None:
        self.title = title
        self.scale, self.unit = _readable(unit)
        self.total = total / self.scale
        self.done = 0.0
        self.note = ""
        self.began = self.printed = time.monotonic()
        _print(f"{title}: {self.total:.4g} {self.unit}")

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Count; print at most every fifteen seconds."""
        self.done += amount / self.scale
        self.note = note or self.note
        if time.monotonic() - self.printed >= _LINE_EVERY_SECONDS:
            self.printed = time.monotonic()
            _print(f"{self.title}: {self.done:.4g} of {self.total:.4g} {self.unit} {self.note}".rstrip())


class _Lines:
    """A reporter that prints plain lines."""

    def start(self, title: str, total: float, unit: str) -> Stage:
        """Print what begins."""
        return _Line(title, total, unit)

    def finish(self, stage: Stage) -> None:
        """Print what ended, and how long it took."""
        if isinstance(stage, _Line):
            took = time.monotonic() - stage.began
            _print(f"{stage.title}: {stage.done:.4g} of {stage.total:.4g} {stage.unit}, {took:.1f} s")

    def say(self, line: str) -> None:
        """Print it."""
        _print(line)


def _print(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
