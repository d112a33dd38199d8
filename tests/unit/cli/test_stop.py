"""What a signal does to a command, and what is said then."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from lf_export import cli
from lf_export.checkpoint.staging import staging
from lf_export.cli.stop import stoppable


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run the command line with one more command, `work`, that does what it is given."""

    def run(work: Callable[[], Any]) -> tuple[int, str]:
        monkeypatch.setitem(cli.app.commands, "work", click.Command("work", callback=work))
        monkeypatch.setattr(sys, "argv", ["lf-export", "work"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(str(ended.value.code)), capsys.readouterr().err

    return run


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_command_with_5_and_says_what_is_kept_and_how_to_go_on(
    run: Callable[..., tuple[int, str]], tmp_path: Path, sent: signal.Signals
) -> None:
    def work() -> None:
        with staging(tmp_path / "a"), staging(tmp_path / "b", keep=lambda _error, _folder: True):
            os.kill(os.getpid(), sent)

    status, said = run(work)
    assert status == 5
    assert "Traceback" not in said
    assert "error: interrupted" in said
    assert (sent.name in said) == (sent is not signal.SIGINT)
    assert f"nothing was kept of: {tmp_path / 'a'}" in said
    (kept,) = tmp_path.iterdir()
    assert f"kept, to go on with: {kept}" in said
    assert "go on: lf-export work" in said
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_second_signal_does_not_interrupt_the_clearing_away() -> None:
    cleared: list[bool] = []

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGHUP)
            cleared.append(True)

    with pytest.raises(KeyboardInterrupt, match="SIGTERM"), stoppable():
        work()
    assert cleared == [True]


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


_ORPHANED = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-m", "lf_export.orphan", str(os.getpid()), "orphan_sleeps"])
child.wait()
"""

_SLEEPS = """
import os, sys, time
assert sys.argv[0].endswith("orphan_sleeps.py"), sys.argv
print(os.getpid(), flush=True)
time.sleep(60)
"""


def test_a_child_ends_with_its_killed_parent(tmp_path: Path) -> None:
    (tmp_path / "orphan_sleeps.py").write_text(_SLEEPS, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    parent = subprocess.Popen(
        [sys.executable, "-c", _ORPHANED], env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    assert parent.stdout.readline().strip().isdigit()
    parent.kill()
    parent.wait()
    assert parent.stdout.read() == ""  # the pipe ends when the child has ended, long before it would by itself
    parent.stdout.close()


def test_a_child_whose_parent_is_gone_does_not_start() -> None:
    command = [sys.executable, "-m", "lf_export.orphan", "1", "this"]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 1
