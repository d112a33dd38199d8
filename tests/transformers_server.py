"""`transformers serve` in a child process."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_START = "import sys; from transformers.cli.transformers import main; sys.argv[0] = 'transformers'; main()"
_PATIENCE = 180


@contextmanager
def transformers_server(model: Path, log: Path) -> Iterator[str]:
    """Serve the folder `model` on a free port of this machine; gives the URL of its interface."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["serve", str(model), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-c", _START, *arguments],
            stdout=output,
            stderr=output,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )
        try:
            _wait(child, f"http://127.0.0.1:{port}", log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _wait(child: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        assert child.poll() is None, f"transformers serve ended: {log.read_text(encoding='utf-8')[-2000:]}"
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):  # noqa: S310 - our own child
                return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"transformers serve did not start within {_PATIENCE} s")
