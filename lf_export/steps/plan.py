"""What a recipe will do, before any weight is touched: steps, what each reads and writes, memory, disk."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_UNITS = ("B", "kB", "MB", "GB", "TB")


@dataclass(frozen=True)
class Step:
    """One step of a run.

    Attributes:
        name: what it is called in messages.
        output: what it makes.
        digest: of its kind, options and inputs; a finished step of the same digest is not done again.
        done: whether such a step has finished before.
        reads: bytes read from disk, None where they are not known yet.
        writes: bytes of the output.
        peak_memory: the largest resident memory, estimated.
        scratch: bytes on disk while it runs, beside the output.
        seconds: how long it takes, estimated; None where it is not known.
    """

    name: str
    output: Path
    digest: str
    done: bool
    reads: int | None
    writes: int | None
    peak_memory: int | None
    scratch: int = 0
    seconds: float | None = None


def bytes_text(count: int | None) -> str:
    """A count of bytes for people, in powers of 1,000: 0 B, 1.5 MB; a dash where it is not known."""
    if count is None:
        return "-"
    value = float(count)
    for unit in _UNITS:
        if value < 1000 or unit == _UNITS[-1]:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError


def seconds_text(seconds: float | None) -> str:
    """A time for people, to two digits: 45 s, 12 min, 3 h 20 min; a dash where it is not known."""
    if seconds is None:
        return "-"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 600 else f"{round(minutes / 60)} h"


def table(steps: Sequence[Step]) -> str:
    """The plan as a table, with what the run needs in all."""
    rows = [("step", "state", "reads", "writes", "peak memory", "time", "output")]
    rows += [
        (
            step.name,
            "done" if step.done else "to do",
            bytes_text(step.reads),
            bytes_text(step.writes),
            bytes_text(step.peak_memory),
            seconds_text(step.seconds),
            str(step.output),
        )
        for step in steps
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    needs = totals(steps)
    lines.append("")
    lines.append(
        f"still to do: {needs['steps_to_do']} of {len(steps)} steps, needs {bytes_text(needs['disk'])} of disk and "
        f"about {bytes_text(needs['peak_memory'])} of memory"
    )
    return "\n".join(lines)


def totals(steps: Sequence[Step]) -> dict[str, Any]:
    """What the steps that are still to do need in all; None where a part is not known yet."""
    waiting = [step for step in steps if not step.done]
    known = all(step.writes is not None and step.peak_memory is not None for step in waiting)
    return {
        "steps_to_do": len(waiting),
        "disk": sum(step.writes or 0 for step in waiting) + max((step.scratch for step in waiting), default=0)
        if known
        else None,
        "peak_memory": max((step.peak_memory or 0 for step in waiting), default=0) if known else None,
    }


def as_facts(steps: Sequence[Step]) -> Mapping[str, Any]:
    """The plan as JSON values."""
    return {
        "steps": [
            {
                "name": step.name,
                "output": str(step.output),
                "digest": step.digest,
                "done": step.done,
                "reads_bytes": step.reads,
                "writes_bytes": step.writes,
                "peak_memory_bytes": step.peak_memory,
                "scratch_bytes": step.scratch,
                "seconds": step.seconds,
            }
            for step in steps
        ],
        "needs": totals(steps),
    }
