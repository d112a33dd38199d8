"""A child process that ends with its parent: what a killed run has started must not go on writing or computing.

`python -m lf_export.orphan PID MODULE ARGUMENT...` runs a module so, as `python -m MODULE` would.
"""

import ctypes
import os
import runpy
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.5


def end_with(parent: int, *, at_once: bool = False) -> None:
    """Let this process end when its parent is gone.

    Args:
        parent: the parent's number, as the parent itself gave it: it may be gone already.
        at_once: let the kernel end it in the same moment. The kernel does so too when only the thread that started
            this process ends, so it must be one that waits for it.
    """
    if at_once and hasattr(libc := ctypes.CDLL(None), "prctl"):
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(1)


def main() -> None:
    """Run the module that the command line names."""
    parent, module = int(sys.argv[1]), sys.argv[2]
    end_with(parent, at_once=True)
    del sys.argv[:2]  # the module's own name stands first, as it would
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
