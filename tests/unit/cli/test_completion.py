"""Shells complete the command line: a real bash does it here."""

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from lf_export.cli import app

SECONDS = 30


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, str], str]]:
    """Type a line with a tab into an interactive bash; gives what it made of it."""
    folder = tmp_path_factory.mktemp("shell")
    (folder / "recipe-here.yaml").write_text("", encoding="utf-8")
    (folder / "bin").mkdir()
    program = folder / "bin" / "lf-export"
    # as pip writes it: Click takes the program's name from the file's
    program.write_text(f"#!{sys.executable}\nfrom lf_export.cli import main\nmain()\n", encoding="utf-8")
    program.chmod(0o755)
    ours, theirs = pty.openpty()
    path = f"{program.parent}:{os.environ['PATH']}"
    shell = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"], stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder,
        start_new_session=True, env={**os.environ, "PATH": path, "TERM": "dumb", "PS1": "ready> ", "COLUMNS": "200"},
    )  # fmt: skip
    os.close(theirs)

    def until(wanted: str) -> str:
        text, end = "", time.monotonic() + SECONDS
        while wanted not in text:
            assert time.monotonic() < end, text
            if select.select([ours], [], [], 1)[0]:
                text += os.read(ours, 4096).decode()
        return text

    def typed(line: str, wanted: str) -> str:
        os.write(ours, line.encode() + b"\t")
        found = until(wanted)
        os.write(ours, b"\x15")  # forget the line
        return found

    try:
        os.write(ours, b'eval "$(lf-export completion bash)"; echo lo""aded\n')
        until("loaded")
        yield typed
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("lf-export quan", "lf-export quantize "),
        ("lf-export recipe sch", "lf-export recipe schema "),
        ("lf-export bench --mar", "lf-export bench --margin "),
        ("lf-export merge --combine lin", "--combine linear "),
        ("lf-export run recipe-h", "lf-export run recipe-here.yaml "),
    ],
)
def test_bash_completes(complete: Callable[[str, str], str], line: str, wanted: str) -> None:
    complete(line, wanted.removeprefix(line))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_for_the_installed_command(shell: str) -> None:
    ended = CliRunner().invoke(app, ["completion", shell], prog_name="python -m lf_export")
    assert ended.exit_code == 0
    assert f"_LF_EXPORT_COMPLETE={shell}_complete" in ended.output
    assert "python" not in ended.output


def test_no_other_shell_is_known() -> None:
    ended = CliRunner().invoke(app, ["completion", "csh"])
    assert ended.exit_code == 2


def test_the_module_is_the_command(tmp_path: Path) -> None:
    for arguments, status in ((["--version"], 0), (["inspect", str(tmp_path / "none")], 3), (["no-such"], 2)):
        done = subprocess.run(
            [sys.executable, "-m", "lf_export", *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == status, done.stderr
    assert done.stdout == ""
