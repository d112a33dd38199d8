"""What is tried: an artifact, its runtime, the dialect that it was calibrated in, and its session."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from lf_export.errors import ExportError, InputError, StepError
from lf_export.functions.dialects import DIALECTS, Dialect, dialect_for
from lf_export.provenance import read_manifest
from lf_export.runtimes import default_runtime
from lf_export.runtimes.base import Generation
from lf_export.runtimes.child import ChildSession
from lf_export.runtimes.guides import Guide
from lf_export.trial.template import rendering_tokenizer

_DEFAULT_DIALECT = "chat-template"


class Artifact:
    """An artifact in a child process, which is started again when it died.

    Args:
        path: the artifact.
        name: what it is called on the page.
        runtime: a name in `RUNTIMES`; None for the format's own.
        threads: to compute with.
        workdir: a folder for scratch files.

    Raises:
        InputError, MissingError, StepError: what the runtime raised while it loaded.
    """

    def __init__(self, path: Path, name: str, runtime: str | None, threads: int, workdir: Path) -> None:
        if not path.exists():
            raise InputError(f"{path}: no such artifact")
        self.path, self.name = path, name
        self.runtime = runtime or default_runtime(path)
        self._threads, self._workdir = threads, workdir
        self._session: ChildSession | None = None
        opened = self.session
        self.load_seconds, self.representative = opened.load_seconds, opened.representative
        self.guided = opened.guided

    @property
    def session(self) -> ChildSession:
        """The session, loaded when there is none."""
        if self._session is None:
            self._session = ChildSession(self.runtime, self.path, self._threads, self._workdir)
            # The first answer of a process is slow: kernels and caches are made with it.
            with contextlib.suppress(InputError):
                list(self._session.stream(self._session.encode(["Hello"])[0], 2))
        return self._session

    def stream(self, prompt: str, max_new_tokens: int, guide: Guide | None = None) -> Iterator[Generation]:
        """The answer to a prompt's text, token by token; see `Session.stream`.

        Raises:
            InputError: the prompt is too long, or the runtime has no engine to follow `guide` with.
            MissingError: that engine is not installed.
            StepError: the child failed; the next request starts another.
        """
        try:
            (ids,) = self.session.encode([prompt])
            yield from self.session.stream(ids, max_new_tokens, guide)
        except StepError:
            self.close()
            raise

    def ended(self, generation: Generation) -> bool:
        """Whether the answer came to its own end."""
        return bool(generation.ids) and generation.ids[-1] in self.session.eos_ids

    def close(self) -> None:
        """End the child process."""
        if self._session is not None:
            self._session.close()
            self._session = None


def open_artifacts(
    paths: Sequence[Path], *, dialect: str | None, runtimes: Sequence[str | None], threads: int, workdir: Path
) -> tuple[list[Artifact], Dialect]:
    """Load artifacts, and the dialect in which all are asked: the given one, else that of the first manifest with one.

    Raises:
        InputError, MissingError, StepError: one cannot be loaded; those loaded before are closed.
    """
    opened: list[Artifact] = []
    try:
        spoken = _dialect(paths, dialect or next(filter(None, map(_manifest_dialect, paths)), _DEFAULT_DIALECT))
        for path, name, runtime in zip(paths, _names(paths), runtimes, strict=True):
            opened.append(Artifact(path, name, runtime, threads, workdir))
    except BaseException:
        for artifact in opened:
            artifact.close()
        raise
    return opened, spoken


def _names(paths: Sequence[Path]) -> list[str]:
    names = [path.stem if path.is_file() else path.resolve().name for path in paths]
    return names if len(set(names)) == len(names) else [f"{name} ({at})" for at, name in enumerate(names, 1)]


def _manifest_dialect(path: Path) -> str | None:
    """The dialect in which the artifact was calibrated; None where nothing says it."""
    found = read_manifest(path if path.is_dir() else path.parent)
    calibration = found.get("calibration") if found else None
    name = calibration.get("dialect") if isinstance(calibration, dict) else None
    return name if isinstance(name, str) and name in DIALECTS else None


def _dialect(paths: Sequence[Path], name: str) -> Dialect:
    """The dialect, with the tokenizer of the first artifact that has one."""
    problem: ExportError | None = None
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such artifact")
        try:
            return dialect_for(name, rendering_tokenizer(path))
        except ExportError as error:
            problem = problem or error
    raise problem or InputError("nothing to try")
