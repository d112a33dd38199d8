"""What the system charges to a child process: wall time, processor time, peak memory."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


def charged(command: Sequence[str], environment: Mapping[str, str], log: Path | None = None) -> dict[str, float]:
    """Run `command` to its end; wall and CPU seconds (user and system) and peak resident memory in MB.

    With `log` what it prints goes there, and is shown where it fails.

    Raises:
        SystemExit: the command ended with a status other than 0.
    """
    opened = [
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    start = time.perf_counter()
    process = os.posix_spawn(command[0], list(command), environment, file_actions=opened if log else [])
    _, status, usage = os.wait4(process, 0)
    wall = time.perf_counter() - start
    if status:
        if log:
            print(log.read_text(errors="replace")[-3000:])
        sys.exit(f"{' '.join(command)} failed with status {os.waitstatus_to_exitcode(status)}")
    return {"wall_s": wall, "cpu_s": usage.ru_utime + usage.ru_stime, "peak_mb": usage.ru_maxrss / 1024}
