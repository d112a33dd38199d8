"""Folders that appear whole or not at all, whatever happens while they are written."""

import errno
import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from said import Said

from lf_export.checkpoint.staging import empty, staging
from lf_export.errors import InputError, StepError
from lf_export.progress import reporting
from lf_export.provenance import MANIFEST_NAME


def system_error(code: int) -> Any:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    return fail


def test_the_folder_appears_when_the_block_has_ended(tmp_path: Path) -> None:
    out = tmp_path / "new" / "artifact"
    with staging(out) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_text("content")
        assert not out.exists()
        assert folder.parent == out.parent
    assert (out / "sub" / "file").read_text() == "content"
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt(), StepError("failed")])
def test_nothing_is_left_when_the_block_raises(tmp_path: Path, error: BaseException) -> None:
    def write() -> None:
        with staging(tmp_path / "artifact") as folder:
            (folder / "file").write_text("half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_an_output_that_exists_is_refused_before_anything_is_written(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "artifact"
    {"file": out.touch, "folder": out.mkdir, "link": lambda: out.symlink_to(tmp_path / "nowhere")}[kind]()
    with pytest.raises(InputError, match="exists already"), staging(out):
        pytest.fail("the block ran")
    assert list(tmp_path.iterdir()) == [out]


def test_an_output_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "artifact"
    with pytest.raises(InputError, match="exists already"), staging(out):
        out.mkdir()
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("kernel", [True, False], ids=["renameat2", "fallback"])
@pytest.mark.parametrize("overwrite", [True, False])
def test_an_artifact_is_replaced_as_a_whole(
    tmp_path: Path, kernel: bool, overwrite: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernel:
        monkeypatch.setattr("lf_export.checkpoint.staging._renameat2", lambda *_: False)
    out = tmp_path / "artifact"
    if overwrite:
        out.mkdir()
        (out / MANIFEST_NAME).write_text("{}")
        (out / "old").touch()
    with staging(out, overwrite=overwrite) as folder:
        (folder / "new").touch()
    assert [path.name for path in out.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [out]


def test_overwriting_keeps_the_old_artifact_when_the_block_raises(tmp_path: Path) -> None:
    out = tmp_path / "artifact"
    out.mkdir()
    (out / MANIFEST_NAME).write_text("{}")
    with pytest.raises(ValueError, match="a bug"), staging(out, overwrite=True):
        raise ValueError("a bug")
    assert (out / MANIFEST_NAME).exists()
    assert list(tmp_path.iterdir()) == [out]


def test_overwriting_refuses_what_is_no_artifact(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").touch()
    with pytest.raises(InputError, match="not an artifact of lf-export"), staging(tmp_path / "home", overwrite=True):
        pytest.fail("the block ran")
    assert (tmp_path / "home" / "thesis.tex").exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwrite", system_error(code))
    with (
        pytest.raises(StepError, match=r"disk full while writing .*/artifact: .* GB free"),
        staging(tmp_path / "artifact") as folder,
        (folder / "file").open("wb") as file,
    ):
        os.pwrite(file.fileno(), b"data", 0)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_found_full_at_the_sync_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", system_error(errno.ENOSPC))
    with pytest.raises(StepError, match="disk full"), staging(tmp_path / "artifact") as folder:
        (folder / "file").touch()
    assert list(tmp_path.iterdir()) == []


def test_a_real_limit_on_the_size_of_files_leaves_nothing_behind(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        with pytest.raises(StepError, match="grew larger than"), staging(tmp_path / "artifact") as folder:
            (folder / "file").write_bytes(b"\0" * 200_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def test_a_staging_folder_that_cannot_be_removed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "rmtree", system_error(errno.EIO))
    with pytest.raises(StepError) as caught, staging(tmp_path / "artifact") as folder:
        raise OSError(errno.ENOSPC, "full")
    assert f"{folder} could not be removed" in (caught.value.hint or "")
    assert not (tmp_path / "artifact").exists()


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "mkdir", system_error(code))
    with pytest.raises(StepError) as caught, staging(tmp_path / "artifact"):
        pytest.fail("the block ran")
    assert caught.value.message.startswith(f"{tmp_path}: cannot be written")


def test_a_parent_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StepError, match="cannot be written"), staging(tmp_path / "file" / "sub" / "artifact"):
        pytest.fail("the block ran")


def test_other_system_errors_pass_through(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), staging(tmp_path / "artifact"):
        (tmp_path / "nothing").read_bytes()
    with pytest.raises(PermissionError), staging(tmp_path / "artifact"):
        raise PermissionError(errno.EACCES, "denied", "/elsewhere/input")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_leaves_no_artifact_and_the_next_run_clears_it(tmp_path: Path) -> None:
    out = tmp_path / "artifact"
    code = (
        "import sys, time; from pathlib import Path; from lf_export.checkpoint.staging import staging\n"
        "with staging(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'half').touch(); print('ready', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, out], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    with pytest.raises(StepError, match="another run is writing it"), staging(out):
        pytest.fail("the block ran")
    child.kill()
    child.wait()
    child.stdout.close()
    (left,) = tmp_path.iterdir()
    said = Said()
    with reporting(said), staging(out) as folder:
        (folder / "whole").touch()
    assert said.lines == [f"removing what a killed run left: {left}"]
    assert list(tmp_path.iterdir()) == [out]
    assert [path.name for path in out.iterdir()] == ["whole"]


def test_without_locks_a_leftover_is_named_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tmp_path / ".artifact.staging-0123"
    left.mkdir()
    monkeypatch.setattr(fcntl, "flock", system_error(errno.ENOTSUP))
    said = Said()
    with reporting(said), staging(tmp_path / "artifact"):
        time.sleep(0)
    assert str(left) in said.lines[0]
    assert left.exists()


def test_a_leftover_of_another_name_is_not_touched(tmp_path: Path) -> None:
    other = tmp_path / ".artifact2.staging-0123"
    other.mkdir()
    with staging(tmp_path / "artifact"):
        pass
    assert other.exists()


def test_a_leftover_is_adopted_as_it_is(tmp_path: Path) -> None:
    left, other = tmp_path / ".artifact.staging-0123", tmp_path / ".artifact.staging-4567"
    left.mkdir()
    other.mkdir()
    (left / "half").write_text("half")
    said = Said()
    with reporting(said), staging(tmp_path / "artifact", adopt=True) as folder:
        assert folder == left
        assert (folder / "half").read_text() == "half"
        with pytest.raises(StepError, match="another run is writing it"), staging(tmp_path / "artifact", adopt=True):
            pytest.fail("the block ran")
        assert left.exists()
    assert said.lines == [f"removing what a killed run left: {other}"]
    assert [path.name for path in (tmp_path / "artifact").iterdir()] == ["half"]


def test_without_locks_nothing_is_adopted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tmp_path / ".artifact.staging-0123"
    left.mkdir()
    monkeypatch.setattr(fcntl, "flock", system_error(errno.ENOTSUP))
    with staging(tmp_path / "artifact", adopt=True) as folder:
        assert folder != left
    assert left.exists()


@pytest.mark.parametrize("kept", [True, False])
def test_a_folder_that_is_kept_can_be_adopted(tmp_path: Path, kept: bool) -> None:
    def interrupted() -> None:
        with staging(tmp_path / "artifact", adopt=True, keep=lambda error, _: kept and "now" in str(error)) as folder:
            (folder / "half").touch()
            raise KeyboardInterrupt("now")

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not (tmp_path / "artifact").exists()
    with staging(tmp_path / "artifact", adopt=True) as folder:
        assert [path.name for path in folder.iterdir()] == (["half"] if kept else [])


def test_a_folder_is_emptied_and_stays(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "sub")
    empty(tmp_path)
    assert list(tmp_path.iterdir()) == []
