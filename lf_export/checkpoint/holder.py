"""Who holds a lock: a process of some host, told apart from another one that was given its number later."""

import json
import os
import shlex
import socket
import sys
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

_PROC = Path("/proc")
_SHOWN = 300


@dataclass(frozen=True)
class Holder:
    """The process that writes an output.

    Attributes:
        pid: its number.
        host: the machine's name.
        boot: which start of the machine; numbers of processes begin anew with each.
        born: when it was started, in clock ticks since the machine was; empty where the system does not say.
        since: when it took the lock, ISO 8601 in UTC.
        command: its command line.
    """

    pid: int
    host: str
    boot: str
    born: str
    since: str
    command: str

    @classmethod
    def here(cls) -> Self:
        """This process."""
        name = "lf-export" if Path(sys.argv[0]).name in {"__main__.py", "lf-export"} else sys.argv[0]
        command = shlex.join([name, *sys.argv[1:]])[:_SHOWN]
        since = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(os.getpid(), socket.gethostname(), _boot(), _born(os.getpid()) or "", since, command)

    @classmethod
    def of(cls, text: str) -> Self | None:
        """The holder in a text that `text` gave; None for any other text."""
        try:
            value = json.loads(text)
            given = [value[each.name] for each in fields(cls)]
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        kinds = [int, str, str, str, str, str]
        return cls(*given) if [type(each) for each in given] == kinds and given[0] > 0 else None

    @property
    def text(self) -> str:
        """As it is stored."""
        return json.dumps(asdict(self)) + "\n"

    @property
    def is_here(self) -> bool:
        """Whether it is this very process."""
        return (self.pid, self.host, self.boot) == (os.getpid(), socket.gethostname(), _boot())

    @property
    def alive(self) -> bool | None:
        """Whether the process still runs; None where it is another host's, which cannot be told from here."""
        if self.host != socket.gethostname():
            return None
        if self.boot != _boot():
            return False
        born = _born(self.pid)
        return born is not None and (not self.born or born == self.born)

    def __str__(self) -> str:
        """The holder for an error's message."""
        return f"process {self.pid} on {self.host}, since {self.since}: {self.command}"


def _boot() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _born(pid: int) -> str | None:
    """When a process was started; empty where that is not known, None where there is no such process."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except PermissionError:
        pass  # another user's
    try:
        stat = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    state, *rest = stat.rpartition(")")[2].split()  # the name before it may hold anything
    return None if state in {"Z", "X"} else rest[18]
