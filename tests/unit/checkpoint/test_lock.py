"""One run at a time for an output."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from said import Said

from lf_export.checkpoint import lock
from lf_export.checkpoint.holder import Holder
from lf_export.checkpoint.lock import lock_path, waiting, writing
from lf_export.errors import StepError
from lf_export.progress import reporting

_HOLD = """
import sys, signal
from pathlib import Path
from lf_export.checkpoint.lock import writing
with writing(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def _holding(out: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock until its standard input ends."""
    other = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(out), "--format", "gptq"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    return other


def _ended(other: subprocess.Popen[str]) -> None:
    other.communicate()


def _changed(**changes: object) -> str:
    return json.dumps(json.loads(Holder.here().text) | changes)


def test_the_lock_lies_beside_the_output_and_goes_with_the_block(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "artifact"
    with writing(out):
        out.mkdir()
        assert sorted(path.name for path in out.parent.iterdir()) == [".artifact.lock", "artifact"]
        assert lock_path(out).is_file()
        assert list(out.iterdir()) == []
    assert [path.name for path in out.parent.iterdir()] == ["artifact"]


def test_the_lock_goes_when_the_block_raises(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), writing(tmp_path / "a"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_another_run_is_refused_and_the_error_names_the_holder(tmp_path: Path) -> None:
    out = tmp_path / "artifact"
    other = _holding(out)
    with pytest.raises(StepError) as refused, writing(out):
        pass
    _ended(other)
    message = refused.value.message
    for part in (str(out), f"process {other.pid} on {Holder.here().host}", "since 20", "--format gptq"):
        assert part in message
    assert "--wait" in str(refused.value.hint)
    with writing(out):  # it has ended
        pass


def test_a_second_waits_where_it_is_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "artifact"
    other = _holding(out)
    said = Said()

    def end(_seconds: float) -> None:
        if other.poll() is None:
            _ended(other)

    monkeypatch.setattr(lock.time, "sleep", end)
    with reporting(said), waiting(), waiting(wait=False), writing(out):  # the block outside decides
        assert other.poll() == 0
    assert len(said.lines) == 1
    assert f"waiting for process {other.pid}" in said.lines[0]


def test_the_lock_of_a_killed_run_is_taken_over(tmp_path: Path) -> None:
    out = tmp_path / "artifact"
    other = _holding(out)
    other.send_signal(signal.SIGKILL)
    _ended(other)
    assert lock_path(out).is_file()
    said = Said()
    with reporting(said), writing(out):
        holder = Holder.of(lock_path(out).read_text(encoding="utf-8"))
        assert holder is not None
        assert holder.pid == os.getpid()
    assert f"taking over the lock of process {other.pid}" in said.lines[0]
    assert list(tmp_path.iterdir()) == []


def test_what_a_run_holds_it_may_ask_for_again(tmp_path: Path) -> None:
    with writing(tmp_path / "a", tmp_path / "b"), writing(tmp_path / "b"):
        assert lock_path(tmp_path / "b").is_file()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"pid": "x"}', "\0" * 99, "[" * 100_000])
def test_a_lock_file_with_any_text_is_no_obstacle(tmp_path: Path, text: str) -> None:
    lock_path(tmp_path / "a").write_text(text, encoding="utf-8")
    with writing(tmp_path / "a"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_the_locks_place_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine", encoding="utf-8")
    lock_path(tmp_path / "a").symlink_to(precious)
    with pytest.raises(StepError, match="symbolic"), writing(tmp_path / "a"):
        pass
    assert precious.read_text(encoding="utf-8") == "mine"


_NO_LOCKS = [("_flock", lambda _handle: None), ("_is_shared", lambda _path: True)]


@pytest.mark.parametrize(("name", "answer"), _NO_LOCKS)
@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"host": "elsewhere"}, True),
        ({"pid": 1, "born": ""}, True),  # the first process is always there
        ({"pid": 1, "born": "123456789012"}, False),  # the number was given to another one
        ({"pid": 2**22 + 1}, False),
        ({"boot": "another", "pid": 1}, False),
    ],
)
def test_where_locks_do_not_reach_the_holders_text_is_believed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    answer: Callable[..., object],
    changes: dict[str, object],
    refused: bool,
) -> None:
    monkeypatch.setattr(lock, name, answer)
    path = lock_path(tmp_path / "a")
    path.write_text(_changed(**changes), encoding="utf-8")
    if not refused:
        with writing(tmp_path / "a"):
            pass
        assert not path.exists()
        return
    with pytest.raises(StepError) as error, writing(tmp_path / "a"):
        pass
    if "host" in changes:
        assert "process" in error.value.message
        assert "elsewhere" in error.value.message
        assert f"remove {path}" in str(error.value.hint)
    assert path.exists()


def test_on_a_file_system_of_this_host_alone_a_free_lock_is_free_whoever_is_named(tmp_path: Path) -> None:
    # such as a container that was made anew, with another name, over the same volume
    lock_path(tmp_path / "a").write_text(_changed(host="elsewhere"), encoding="utf-8")
    with writing(tmp_path / "a"):
        pass
    assert list(tmp_path.iterdir()) == []
