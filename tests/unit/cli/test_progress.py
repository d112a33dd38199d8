"""Progress is plain lines in a pipe, and bars in a terminal."""

import io
import sys
from typing import Any

import pytest

from lf_export.cli.progress import shown
from lf_export.progress import say, stage


def test_a_pipe_gets_a_line_at_the_start_and_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with shown(), stage("merge", 2_500_000, "B") as advance:
        advance(1_000_000)
        advance(1_500_000, "last tensor")
        say("a remark")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "merge: 2.5 MB"
    assert lines[1] == "a remark"
    assert lines[2].startswith("merge: 2.5 of 2.5 MB, ")


def test_a_line_in_between_comes_only_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr("lf_export.cli.progress.time.monotonic", lambda: now[0])
    with shown(), stage("bench q4", 100, "items") as advance:
        for _ in range(40):
            now[0] += 1
            advance(1, "item")
    assert capsys.readouterr().err.splitlines() == [
        "bench q4: 100 items",
        "bench q4: 15 of 100 items item",
        "bench q4: 30 of 100 items item",
        "bench q4: 40 of 100 items, 40.0 s",
    ]


def test_a_terminal_gets_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen: Any = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with shown(), stage("quantize", 3, "layers") as advance:
        advance(3, "model.layers.2")
        say("a remark")
    text = screen.getvalue()
    assert "quantize" in text
    assert "3/3" in text
    assert "━" in text
    assert "a remark" in text


def test_without_a_reporter_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with stage("merge", 1, "B") as advance:
        advance()
        say("a remark")
    assert capsys.readouterr() == ("", "")
