"""An artifact and the baseline timed in turn on the same prompts, each in its own child process."""

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Protocol, Self

from lf_export.errors import ExportError
from lf_export.metrics.latency import Times
from lf_export.metrics.paired_latency import Pair
from lf_export.runtimes.base import Generation
from lf_export.runtimes.child import ChildSession
from lf_export.walk.budget import available_memory


class BaselineLost(Exception):  # noqa: N818 - no error of the export: times are taken alone then
    """The baseline's process failed while both were timed; no finding about the artifact."""


class Timed(Protocol):
    """What is timed."""

    def generate_one(self, prompt: Sequence[int], max_new_tokens: int) -> Generation:
        """See `Session.generate_one`."""
        ...


class Beside:
    """The baseline, opened again when the first artifact is timed beside it and kept for the next; a context manager.

    Args:
        runtime, path, threads, workdir: as for `ChildSession`.
        peak_bytes: the baseline's peak memory, once it was measured; it is opened only where that much is free.
    """

    def __init__(self, runtime: str, path: Path, threads: int, workdir: Path, peak_bytes: int = 0) -> None:
        self._arguments = (runtime, path, threads, workdir)
        self.peak_bytes = peak_bytes
        self._session: ChildSession | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def session(self) -> ChildSession | str:
        """The baseline's session, or in words why there is none."""
        if self._session is None:
            free = available_memory()
            if free < self.peak_bytes:
                needed = f"{self.peak_bytes / 1e9:.1f} GB are needed for the baseline beside it"
                return f"{needed} and {free / 1e9:.1f} GB are free"
            try:
                self._session = ChildSession(*self._arguments)
            except ExportError as error:
                return f"the baseline cannot be opened beside it: {error.message}"
        return self._session

    def make_room(self) -> None:
        """Close the baseline where another artifact of its size might not fit beside it."""
        if self._session is not None and available_memory() < self.peak_bytes:
            self.close()

    def close(self) -> None:
        """End the baseline's process; the next `session` opens it again."""
        if self._session is not None:
            self._session.close()
            self._session = None


def time_in_turn(
    baseline: Timed,
    artifact: Timed,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    *,
    rounds: int,
    seed: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> list[list[Pair]]:
    """Time each prompt `rounds` times in both, in the order A B, B A, A B, …; which is first is drawn by `seed`.

    Both answer the first prompt once before, uncounted. A drift of the machine's speed meets both alike.

    Returns:
        One list a prompt, `rounds` long.

    Raises:
        BaselineLost: the baseline did not answer.
        ExportError: the artifact did not.
    """
    if not prompts:
        return []

    def theirs_for(prompt: Sequence[int], count: int) -> Times:
        try:
            return baseline.generate_one(prompt, count).times
        except ExportError as error:
            raise BaselineLost(error.message) from error

    theirs_for(prompts[0], 2)
    artifact.generate_one(prompts[0], 2)
    draw = Random(seed)  # noqa: S311 - an order, not a secret
    pairs: list[list[Pair]] = []
    for prompt in prompts:
        baseline_first = draw.random() < 0.5
        found = []
        for number in range(rounds):
            if baseline_first == (number % 2 == 0):
                theirs = theirs_for(prompt, max_new_tokens)
                ours = artifact.generate_one(prompt, max_new_tokens).times
            else:
                ours = artifact.generate_one(prompt, max_new_tokens).times
                theirs = theirs_for(prompt, max_new_tokens)
            found.append(Pair(theirs, ours))
        pairs.append(found)
        advance()
    return pairs
