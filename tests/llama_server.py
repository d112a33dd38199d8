"""llama.cpp's own server in a child process, from the xllamacpp wheel; run as a script, it is that child."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def llama_server(model: Path, *, slots: int = 2, context: int = 1024, key: str = "") -> Iterator[str]:
    """Serve the GGUF `model` on a free port of this machine; gives the URL of its interface.

    `slots` requests are answered at a time, each with `context` tokens of room; `key` is asked of every client.
    """
    child = subprocess.Popen(
        [sys.executable, __file__, str(model), str(slots), str(context), key],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        address = child.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), f"llama.cpp's server did not start: exit {child.wait(5)}"
        yield f"{address}/v1"
    finally:
        child.stdin.close()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdout.close()


def _serve(model: str, slots: int, context: int, key: str) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.n_parallel, params.n_ctx = slots, slots * context
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.warmup = False
    if key:
        params.api_keys = [key]
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)  # noqa: T201 - the parent reads it
    sys.stdin.read()


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
