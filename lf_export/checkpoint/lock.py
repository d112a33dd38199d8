"""One run at a time for an output: a lock beside it that names its holder, and that no dead process holds.

The kernel's lock on `.NAME.lock` decides, and is free as soon as its holder is dead; the file's text says who it is.
Where the file system has no locks the text decides alone. Between hosts that share a folder a kernel's lock may hold on
one host only, so there the text of another host is believed too.
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path

from lf_export.checkpoint.holder import Holder
from lf_export.checkpoint.staging import disk_errors
from lf_export.errors import StepError
from lf_export.progress import say

_POLL_SECONDS = 0.2
_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}
# file systems that several hosts may have mounted at once
_SHARED = ("nfs", "cifs", "smb", "9p", "fuse", "ceph", "lustre", "gpfs", "glusterfs", "afs", "gfs2", "ocfs2", "beegfs")

_held: ContextVar[frozenset[Path]] = ContextVar("lf_export_held", default=frozenset())
_patient: ContextVar[bool] = ContextVar("lf_export_patient", default=False)


@contextmanager
def waiting(*, wait: bool = True) -> Iterator[None]:
    """Inside the block `writing` waits for another run instead of ending with an error.

    Where `wait` is false it does what the block around this one says.
    """
    token = _patient.set(wait or _patient.get())
    try:
        yield
    finally:
        _patient.reset(token)


@contextmanager
def writing(*outs: Path) -> Iterator[None]:
    """Be the only run that writes these outputs while the block runs; what this run holds already is not asked for.

    Raises:
        StepError: another run writes one of them, with its process, host, time and command.
    """
    paths = [lock_path(out) for out in outs]
    with ExitStack() as stack:
        for out, path in sorted(zip(outs, paths, strict=True), key=lambda each: each[1]):  # one order: no deadlock
            if path not in _held.get():
                stack.enter_context(_locked(out, path))
        token = _held.set(_held.get() | set(paths))
        try:
            yield
        finally:
            _held.reset(token)


def lock_path(out: Path) -> Path:
    """Where the lock of an output lies: beside it, and never inside an artifact."""
    out = Path(os.path.abspath(out))  # noqa: PTH100 (resolve would follow a link that is in the way)
    return out.with_name(f".{out.name}.lock")


@contextmanager
def _locked(out: Path, path: Path) -> Iterator[None]:
    with disk_errors(out):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _take(out, path)
    try:
        with disk_errors(out):
            os.ftruncate(handle, 0)
            os.pwrite(handle, Holder.here().text.encode(), 0)
        yield
    finally:
        # before it is free, so that it is never somebody else's that is removed
        if _same(handle, path):
            path.unlink()
        os.close(handle)


def _take(out: Path, path: Path) -> int:
    """The locked file; its text is not ours yet."""
    told = False
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            other, free = _look(handle, path)
        except BaseException:
            os.close(handle)
            raise
        if free:
            if other is not None:
                say(f"taking over the lock of {other}: it ended without removing it")
            return handle
        gone = not _same(handle, path)  # its holder has removed it in between: look again at once
        os.close(handle)
        if gone:
            continue
        if not _patient.get():
            _refuse(out, path, other)
        if not told:
            say(f"{out}: waiting for {other or 'another run'}")
            told = True
        time.sleep(_POLL_SECONDS)


def _look(handle: int, path: Path) -> tuple[Holder | None, bool]:
    """Who is named in the file, and whether it is ours now."""
    kernel = _flock(handle)
    other = Holder.of(os.pread(handle, 65536, 0).decode("utf-8", "replace"))
    if kernel is False or not _same(handle, path):
        return other, False
    if other is None or other.is_here:
        return other, True
    believed = kernel is None or _is_shared(path)
    return other, not believed or other.alive is False


def _refuse(out: Path, path: Path, other: Holder | None) -> None:
    message = f"{out}: another run is writing it"
    if other is None:
        raise StepError(message, "wait for that run, or choose another name")
    if other.alive is None:
        raise StepError(
            f"{message} ({other}), and whether it still runs cannot be told from this host",
            f"wait for it with --wait; if it has ended, remove {path}",
        )
    raise StepError(f"{message} ({other})", "wait for it with --wait, or choose another name")


def _flock(handle: int) -> bool | None:
    """True: locked; False: someone else holds it; None: this file system has no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


def _same(handle: int, path: Path) -> bool:
    """Whether the open file is the one that has the name now."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def _is_shared(path: Path) -> bool:
    """Whether several hosts may write there; where the system does not say, they may not."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    place = path.parent.stat().st_dev
    for line in lines:
        mounted, _, kind = line.partition(" - ")
        major, _, minor = mounted.split()[2].partition(":")
        if os.makedev(int(major), int(minor)) == place:
            return kind.startswith(_SHARED)
    return False
