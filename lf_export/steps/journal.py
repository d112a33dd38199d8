"""Where a quantize step stands, on disk after each layer: a run that was killed is gone on with at that layer."""

import hashlib
import json
import os
import shutil
import signal
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import numpy.typing as npt

from lf_export.checkpoint.staging import empty, sync
from lf_export.formats.base import ArtifactFacts, Snapshot, Target
from lf_export.progress import say
from lf_export.walk.journal import Standing

FOLDER = ".walk"
"""In the first target's staging folder; it never reaches an artifact."""

SCHEMA = 1
"""Of the state; part of a run's identity."""

_STATE = "state.json"

Arrays = Mapping[str, npt.NDArray[np.float32]]


class _UnusableError(Exception):
    """Why a leftover cannot be gone on with."""


class RunJournal:
    """The state of one walk and its targets, committed after each layer and after each target is finished.

    Everything that was written is synced to disk first, then the state is put in place in one step. What is newer than
    the state is cut off when the run goes on.

    Args:
        identity: a digest of all that decides the artifacts' bytes. A state of another identity is not used.
        layers: of the model, for messages.
    """

    def __init__(self, identity: str, layers: int) -> None:
        self.folder = Path(FOLDER)
        self.standing: Standing | None = None
        self.facts: list[ArtifactFacts | None] = []
        self._identity, self._layers = identity, layers
        self._folders: list[Path] = []
        self._snapshots: list[Snapshot] = []
        self._targets: list[Target | None] = []
        self._commits = 0

    def adopt(self, folders: Sequence[Path]) -> None:
        """Look at the targets' staging folders: go on with what is there, all of it or nothing."""
        self.folder, self._folders = folders[0] / FOLDER, list(folders)
        self.facts = [None] * len(folders)
        if any(any(folder.iterdir()) for folder in folders):
            try:
                self._load()
            except _UnusableError as error:
                say(f"starting over, removing what a killed run left: {error}")
                for folder in folders:
                    empty(folder)
            else:
                say(f"going on {self._place()}")
        self.folder.mkdir(exist_ok=True)

    def restore(self, targets: Sequence[Target | None]) -> None:
        """Bring new targets to where the run stands; None stands for one that is finished."""
        self._targets = list(targets)
        for target, snapshot in zip(targets, self._snapshots, strict=False):
            if target is not None:
                target.restore(snapshot)
        self._snapshots = []

    def commit(self, standing: Standing) -> None:
        """Note that a layer is done."""
        self._write(standing)

    def finished(self, index: int, facts: ArtifactFacts) -> None:
        """Note that a target is finished: its folder is complete but for what the step itself adds."""
        self.facts[index] = facts
        self._targets[index] = None
        if self.standing is not None:  # else the model has no layers, and nothing is worth going on with
            self._write(self.standing)

    def keeps(self, error: BaseException, folder: Path) -> bool:
        """Whether a target's folder stays when the step ends with `error`."""
        if not self._folders:  # another target's folder could not be had: nobody has looked at this one
            return any(folder.iterdir())
        # a signal may come after the state is written and before it is noted here
        return isinstance(error, KeyboardInterrupt) and (self.standing is not None or (self.folder / _STATE).is_file())

    def say_interrupted(self) -> None:
        """Say how to go on, where that can be done."""
        if self.standing is not None:
            say(f"interrupted: run the same command again to go on {self._place()}")

    def close(self) -> None:
        """Remove the state: the artifacts are complete."""
        self.standing = None
        shutil.rmtree(self.folder)

    def _place(self) -> str:
        done = self.standing.layers if self.standing else 0
        return f"at layer {done + 1} of {self._layers}" if done < self._layers else f"after layer {done} of {done}"

    def _write(self, standing: Standing) -> None:
        snapshots = [target.snapshot() if target else None for target in self._targets]
        self._commits += 1
        kept = _write_arrays(self.folder / f"arrays-{standing.layers}-{self._commits}.npz", snapshots)
        for folder in self._folders:
            sync(folder)
        arrays = set(self.folder.glob("arrays-*.npz"))
        state = {
            "identity": self._identity,
            "layers": standing.layers,
            "side": standing.side,
            "executions": standing.executions,
            "arrays": kept.name if kept else None,
            "targets": [
                {
                    "folder": folder.name,
                    "files": {
                        path.relative_to(folder).as_posix(): path.stat().st_size
                        for path in _files(folder)
                        if path == kept or path not in arrays
                    },
                    "snapshot": dict(snapshot.facts) if snapshot else None,
                    "facts": facts,
                }
                for folder, snapshot, facts in zip(self._folders, snapshots, self.facts, strict=True)
            ],
        }
        _replace(self.folder / _STATE, state_text(state))
        self.standing = standing
        for path in arrays - {kept}:
            path.unlink()

    def _load(self) -> None:
        try:
            text = (self.folder / _STATE).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise _UnusableError("no layer was done") from error
        except (OSError, UnicodeDecodeError) as error:
            raise _UnusableError(f"{self.folder / _STATE} cannot be read") from error
        state = state_of(text)
        if state is None:
            raise _UnusableError(f"{self.folder / _STATE} is damaged")
        if state["identity"] != self._identity:
            raise _UnusableError("its inputs, options or versions were other ones")
        targets = state["targets"]
        if [target["folder"] for target in targets] != [folder.name for folder in self._folders]:
            raise _UnusableError("a target's folder is gone")
        for target, folder in zip(targets, self._folders, strict=True):
            _check(folder, target["files"])
        arrays = _read_arrays(self.folder / state["arrays"]) if state["arrays"] else {}
        for target, folder in zip(targets, self._folders, strict=True):
            _cut(folder, target["files"])
        self._snapshots = [
            Snapshot(target["snapshot"] or {}, _arrays_of(arrays, number)) for number, target in enumerate(targets)
        ]
        self.facts = [target["facts"] for target in targets]
        self.standing = Standing(state["layers"], state["side"], state["executions"])


def state_text(state: Mapping[str, Any]) -> str:
    """A state as it is stored, with a digest by which damage shows. The order of keys is kept."""
    text = json.dumps(state)
    return json.dumps({"digest": hashlib.sha256(text.encode()).hexdigest(), "state": state})


def state_of(text: str) -> dict[str, Any] | None:
    """The state in a text that `state_text` gave; None for any other text."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("state"), dict):
        return None
    state: dict[str, Any] = value["state"]
    return state if hashlib.sha256(json.dumps(state).encode()).hexdigest() == value.get("digest") else None


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM end the block as SIGINT does, so that it can say how to go on; a handler that is set stays."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _files(folder: Path) -> Iterator[Path]:
    """Every file of a target, the state apart."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.relative_to(folder).parts[0:2] != (FOLDER, _STATE):
            yield path


def _check(folder: Path, sizes: Mapping[str, int]) -> None:
    for name, size in sizes.items():
        path = folder / name
        held = path.stat().st_size if path.is_file() else None
        if held is None:
            raise _UnusableError(f"{path} is gone")
        if held < size:
            raise _UnusableError(f"{path} is truncated: {held:,} bytes of {size:,}")


def _cut(folder: Path, sizes: Mapping[str, int]) -> None:
    """Bring a folder back to what the state says: files no longer than they were, and no others."""
    for path in list(_files(folder)):
        size = sizes.get(path.relative_to(folder).as_posix())
        if size is None:
            path.unlink()
        elif path.stat().st_size > size:
            os.truncate(path, size)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _replace(path: Path, text: str) -> None:
    """Put a file in place in one step, on disk when this returns."""
    staged = path.with_suffix(".staged")
    with staged.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_arrays(path: Path, snapshots: Sequence[Snapshot | None]) -> Path | None:
    arrays = {
        f"{number}/{name}": array
        for number, snapshot in enumerate(snapshots)
        if snapshot is not None
        for name, array in snapshot.arrays.items()
    }
    if not arrays:
        return None
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    return path


def _read_arrays(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise _UnusableError(f"{path} is damaged") from error


def _arrays_of(arrays: Arrays, number: int) -> Arrays:
    start = f"{number}/"
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
