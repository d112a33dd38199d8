"""A child process that makes a graph: exporters print, keep memory, and exit with 0 whatever they wrote."""

import errno
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lf_export.errors import StepError

GRAPH_NAME = "model.onnx"
CONFIG_NAME = "genai_config.json"

_SHOWN = 3
_FULL = os.strerror(errno.ENOSPC)


def run_exporter(module: Sequence[str], who: str, log: Path, made: Sequence[Path], threads: int, memory: str) -> None:
    """Run `module`, offline, and see that it left what it was to make.

    Args:
        module: its name and its arguments, as after `python -m`.
        who: what it is called in an error.
        log: a file for what it prints.
        made: the files that it has to leave.
        threads: of the child.
        memory: how much it needs, for the hint where it was killed.

    Raises:
        StepError: it failed, or a file is not there.
        OSError: its disk was full.
    """
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment = os.environ | offline | {"OMP_NUM_THREADS": str(threads), "TRANSFORMERS_VERBOSITY": "error"}
    # a child that outlived a killed run would write into what the next one goes on with
    command = [sys.executable, "-m", "lf_export.orphan", str(os.getpid()), *module]
    with log.open("wb") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment, check=False)
    if done.returncode or not all(path.is_file() for path in made):
        if _FULL in log.read_text(encoding="utf-8", errors="replace"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(log.parent))
        said = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        how = f"was ended by signal {-done.returncode}" if done.returncode < 0 else f"exited with {done.returncode}"
        raise StepError(f"{who} {how}: {' | '.join(said[-_SHOWN:])}", memory if done.returncode < 0 else None)
