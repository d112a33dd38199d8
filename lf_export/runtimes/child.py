"""An artifact in a child process: the parent's end of `lf_export.runtimes.worker`.

A child that dies, of memory or of a library's crash, is a finding about the artifact and not the end of the bench.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from lf_export.errors import ExportError, InputError, MissingError, StepError
from lf_export.runtimes.base import Generation, Logits, PromptGroup
from lf_export.runtimes.guides import Guide, Guides

_STDERR_KEPT = 4000


class ChildSession:
    """A `Session` whose artifact lives in a child process; use it as a context manager.

    Raises:
        InputError, MissingError, StepError: what the runtime raised while it loaded or answered; StepError also when
            the child died, with the end of what it wrote to standard error.
    """

    def __init__(self, runtime: str, path: Path, threads: int, workdir: Path) -> None:
        self._where = f"{path} in {runtime}"
        self._stderr = tempfile.TemporaryFile(dir=workdir)  # noqa: SIM115 - closed with the session
        descriptor, name = tempfile.mkstemp(suffix=".f32", dir=workdir)
        os.close(descriptor)
        self._logits = Path(name)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lf_export.runtimes.worker", runtime, str(path), str(threads), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            encoding="utf-8",
            env=os.environ | {"OMP_NUM_THREADS": str(threads), "TRANSFORMERS_VERBOSITY": "error"},
        )
        try:
            hello = self._receive()
        except BaseException as error:
            self._end(error)
            raise
        self.name: str = hello["name"]
        self.representative: bool = hello["representative"]
        self.load_seconds: float = hello["load_seconds"]
        self.eos_ids: frozenset[int] = frozenset(hello["eos_ids"])
        self.vocab_size: int = hello["vocab_size"]
        self.guided: str = hello["guided"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        """Close; where the run is being stopped nobody waits for an answer that is under way."""
        if error is not None and not isinstance(error, Exception):
            self._process.kill()
        self.close()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text by the artifact's own tokenizer."""
        ids: list[list[int]] = self._ask(do="encode", texts=list(texts))["ids"]
        return ids

    def score(self, prefix: Sequence[int], branches: Sequence[Sequence[int]], starts: Sequence[int]) -> list[Logits]:
        """See `Session.score`."""
        answer = self._ask(
            do="score",
            prefix=_plain(prefix),
            branches=[_plain(branch) for branch in branches],
            starts=list(starts),
            file=str(self._logits),
        )
        flat = np.fromfile(self._logits, dtype=np.float32).reshape(-1, self.vocab_size)
        return np.split(flat, np.cumsum(answer["rows"])[:-1])

    def generate_groups(
        self, groups: Sequence[PromptGroup], max_new_tokens: int, guides: Guides | None = None
    ) -> Iterator[tuple[int, list[Generation]]]:
        """See `Session.generate_groups`; what is asked before the last group has come is answered by nothing."""
        plain = [(_plain(prefix), [_plain(branch) for branch in branches]) for prefix, branches in groups]
        numbers = {guide: number for number, guide in enumerate(dict.fromkeys(_given(guides)))}
        answer = self._ask(
            do="generate",
            groups=plain,
            max_new_tokens=max_new_tokens,
            guides=[guide.to_json() for guide in numbers],
            guided=None if guides is None else [[guide and numbers[guide] for guide in group] for group in guides],
        )
        while "group" in answer:
            yield answer["group"], _generations(answer["generations"])
            answer = self._receive()

    def generate_one(self, prompt: Sequence[int], max_new_tokens: int) -> Generation:
        """See `Session.generate_one`."""
        answer = self._ask(do="generate_one", prompt=_plain(prompt), max_new_tokens=max_new_tokens)
        return _generations(answer["generations"])[0]

    def stream(self, prompt: Sequence[int], max_new_tokens: int, guide: Guide | None = None) -> Iterator[Generation]:
        """See `Session.stream`; a token is computed when it is asked for, so that an answer ends where it is left."""
        answer = self._ask(
            do="stream", prompt=_plain(prompt), max_new_tokens=max_new_tokens, guide=guide and guide.to_json()
        )
        while answer["generations"]:
            yield _generations(answer["generations"])[0]
            answer = self._ask(do="more")

    def time_batch(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> tuple[float, ...]:
        """See `Session.time_batch`."""
        answer = self._ask(do="time_batch", prompts=[_plain(prompt) for prompt in prompts], new_tokens=new_tokens)
        return tuple(answer["times"])

    def peak_gpu_bytes(self) -> int | None:
        """See `Session.peak_gpu_bytes`."""
        found: int | None = self._ask(do="peak_gpu")["bytes"]
        return found

    def usage(self) -> tuple[int, float]:
        """The child's peak resident memory in bytes and its CPU seconds so far."""
        answer = self._ask(do="usage")
        return int(answer["peak_rss_bytes"]), float(answer["cpu_seconds"])

    def close(self) -> None:
        """End the child and remove its scratch file."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._stderr.close()
        self._logits.unlink(missing_ok=True)

    def _ask(self, **request: Any) -> dict[str, Any]:
        stdin = self._process.stdin
        if stdin is None:
            raise StepError(f"{self._where}: the child takes no requests")
        try:
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
        except BrokenPipeError:
            self._died()
        return self._receive()

    def _receive(self) -> dict[str, Any]:
        stdout = self._process.stdout
        line = stdout.readline() if stdout is not None else ""
        if not line:
            self._died()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            kinds: dict[int, type[ExportError]] = {3: InputError, 4: MissingError}
            raise kinds.get(answer["status"], StepError)(answer["error"], answer["hint"])
        return answer

    def _died(self) -> None:
        status = self._process.wait()
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - _STDERR_KEPT))
        text = self._stderr.read().decode("utf-8", "replace").strip()
        last = text.splitlines()[-1] if text else "it wrote nothing to standard error"
        raise StepError(f"{self._where}: the child process ended with {how}: {last}")


def _given(guides: Guides | None) -> Iterator[Guide]:
    """Every guide that there is; many answers have the same one, which is sent once."""
    for group in guides or ():
        yield from filter(None, group)


def _plain(ids: Sequence[int]) -> list[int]:
    return [int(token) for token in ids]


def _generations(found: Sequence[dict[str, Any]]) -> list[Generation]:
    return [Generation(tuple(each["ids"]), each["text"], tuple(each["times"])) for each in found]
