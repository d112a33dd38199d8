"""Folders that appear whole or not at all: written beside their place, synced, then renamed into it."""

import ctypes
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lf_export.errors import ExportError, InputError, StepError
from lf_export.progress import say
from lf_export.provenance import MANIFEST_NAME

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
_FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EIO, errno.ELOOP}


@contextmanager
def staging(
    out: Path,
    overwrite: bool = False,
    *,
    adopt: bool = False,
    keep: Callable[[BaseException, Path], bool] | None = None,
) -> Iterator[Path]:
    """A new empty folder beside `out` that becomes `out` when the block ends well.

    At the end every file is synced to disk and the folder is renamed in one step; when the block raises, the folder is
    removed and nothing named `out` is left (with `overwrite`, the old one stays). The folder is locked while it is
    written, so that the next run tells a killed run's leftover from a run that is still going.

    Args:
        out: the folder to be; its parents are made.
        overwrite: replace `out` if it is an artifact of lf-export (has its manifest) or an empty folder.
        adopt: where a killed run left a folder, yield that one as it is. The caller looks at what is in it, now that
            nobody else can, and goes on with it or empties it (`empty`).
        keep: asked with the error and the folder when the block raises: True leaves it for a later run to adopt.

    Raises:
        InputError: `out` exists.
        StepError: the place cannot be written, the disk is full, or another run is writing `out`.
    """
    out = Path(os.path.abspath(out))  # noqa: PTH100 (resolve would follow a link that is in the way)
    _refuse_existing(out, overwrite=overwrite)
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        folder, lock = _leftover(out, adopt=adopt) or _create(out)
    try:
        with disk_errors(out):
            yield folder
            sync(folder)
            _publish(folder, out, overwrite=overwrite)
    except BaseException as error:
        if keep is not None and keep(error, folder):
            error.add_note(f"kept, to go on with: {folder}")
            raise
        left = _discard(folder)
        if not isinstance(error, Exception):
            error.add_note(f"nothing was kept of: {out}")
        if left and isinstance(error, ExportError):
            error.hint = left
        elif left:
            say(left)
        raise
    finally:
        os.close(lock)


@contextmanager
def disk_errors(out: Path) -> Iterator[None]:
    """Turn the system's refusal to write `out` (disk full, read-only, no permission) into a StepError.

    Other system errors, and those of files elsewhere, pass through.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StepError(
                f"disk full while writing {out}: {_free(out.parent)} free",
                "nothing of it was left behind: free some space and run the same command again",
            ) from error
        if error.errno == errno.EFBIG:
            raise StepError(f"{out}: a file grew larger than the file system or the process's limit allows") from error
        elsewhere = error.filename is not None and not _within(Path(os.fsdecode(error.filename)), out.parent)
        if error.errno not in _REFUSED or elsewhere:
            raise
        raise StepError(
            f"{out.parent}: cannot be written: {os.strerror(error.errno or 0).lower()}",
            "choose another place with -o, or change the folder's permissions",
        ) from error


def _within(path: Path, parent: Path) -> bool:
    # also when the parent itself could not be made: then the path is one of its own parents
    path = Path(os.path.abspath(path))  # noqa: PTH100 (resolve would fail where a link is broken)
    return path.is_relative_to(parent) or parent.is_relative_to(path)


def _free(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder).free / 1e9:.2f} GB"
    except OSError:
        return "unknown space"


def _refuse_existing(out: Path, *, overwrite: bool) -> None:
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise InputError(f"{out}: exists already", "choose another name, or replace it with --overwrite")
    replaceable = out.is_dir() and not out.is_symlink()
    if not replaceable or (any(out.iterdir()) and not (out / MANIFEST_NAME).exists()):
        raise InputError(
            f"{out}: will not be overwritten: it is not an artifact of lf-export (no {MANIFEST_NAME} in it)",
            "remove it yourself if it is not needed",
        )


def _create(out: Path) -> tuple[Path, int]:
    while True:
        folder = out.parent / f".{out.name}.staging-{secrets.token_hex(4)}"
        folder.mkdir()
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        _try_lock(lock)
        if os.fstat(lock).st_nlink:  # else another run took it for a leftover before it was locked
            return folder, lock
        os.close(lock)


def _try_lock(handle: int) -> bool | None:
    """True: locked; False: someone else holds it; None: this file system has no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _leftover(out: Path, *, adopt: bool) -> tuple[Path, int] | None:
    """Remove what killed runs left; with `adopt`, the first of it is locked and given instead."""
    prefix = f".{out.name}.staging-"
    adopted: tuple[Path, int] | None = None
    try:
        for path in sorted(out.parent.iterdir()):
            if not path.name.startswith(prefix) or path.is_symlink() or not path.is_dir():
                continue
            lock = _locked(path, out)
            if lock is None:
                continue
            if adopt and adopted is None:
                adopted = (path, lock)
                continue
            try:
                say(f"removing what a killed run left: {path}")
                shutil.rmtree(path)
            finally:
                os.close(lock)
    except BaseException:
        if adopted is not None:
            os.close(adopted[1])
        raise
    return adopted


def _locked(path: Path, out: Path) -> int | None:
    """The lock of a leftover; None where it has gone meanwhile, or cannot be told from a run that is going on."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    free = _try_lock(handle)
    if free and path.exists():  # else another run has removed or published it before the lock
        return handle
    os.close(handle)
    if free is False:
        raise StepError(f"{out}: another run is writing it (in {path})", "wait for that run, or choose another name")
    if free is None:
        say(f"a run that was killed may have left {path}: remove it when no other run writes {out.name}")
    return None


def clear_leftovers(out: Path) -> None:
    """Remove what killed runs left beside `out`.

    Raises:
        StepError: another run is writing it.
    """
    _leftover(out, adopt=False)


def empty(folder: Path) -> None:
    """Remove everything in a folder, and not the folder: it stays locked."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def sync(folder: Path) -> None:
    """Bring every file of a folder to the disk."""
    for root, _, names in os.walk(folder, topdown=False):
        for path in [*(os.path.join(root, name) for name in names), root]:  # noqa: PTH118 (os.walk gives strings)
            if os.path.islink(path):  # noqa: PTH114
                continue
            _fsync(path)


def _fsync(path: str | Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _publish(folder: Path, out: Path, *, overwrite: bool) -> None:
    if overwrite and os.path.lexists(out):
        _refuse_existing(out, overwrite=True)
        _exchange(folder, out)
        _settle(out, lambda: _exchange(folder, out))
        if left := _discard(folder):  # the old artifact, which has changed places with the new one
            say(left)
        return
    try:
        if not _renameat2(folder, out, _RENAME_NOREPLACE):
            _refuse_existing(out, overwrite=False)
            folder.rename(out)
    except FileExistsError:
        _refuse_existing(out, overwrite=False)
        raise
    _settle(out, lambda: out.rename(folder))


def _exchange(folder: Path, out: Path) -> None:
    if not _renameat2(folder, out, _RENAME_EXCHANGE):
        aside = folder.with_name(folder.name + ".old")
        out.rename(aside)
        folder.rename(out)
        aside.rename(folder)


def _settle(out: Path, undo: Callable[[], object]) -> None:
    """Bring the new name to the disk; where that fails it is taken back, for a step that fails leaves none."""
    try:
        _fsync(out.parent)
    except OSError:
        undo()
        raise


def _renameat2(source: Path, target: Path, flag: int) -> bool:
    """Linux's rename with a flag; False where the system or the file system has none."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flag) == 0:
        return True
    code = ctypes.get_errno()
    if code in {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP}:
        return False
    raise OSError(code, os.strerror(code), str(target))


def _discard(folder: Path) -> str | None:
    """Remove the folder; where that fails, say that it is left."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{folder} could not be removed ({error.strerror}): remove it yourself"
    return None
