"""Help pages need nothing heavy, and every error leaves with its status."""

import json
import subprocess
import sys

import pytest

from lf_export import cli
from lf_export.errors import ExportError, InputError, MissingError, StepError

COMMANDS = [
    "",
    "merge",
    "calibrate",
    "quantize",
    "bench",
    "compare",
    "report",
    "run",
    "inspect",
    "verify",
    "sign",
    "bom",
    "recipe",
    "recipe check",
    "try",
]
HEAVY = {
    *("torch", "transformers", "numpy", "pydantic", "yaml", "rich", "gguf", "xllamacpp", "peft", "safetensors"),
    *("jinja2", "vl_convert", "model_signing", "cyclonedx", "gradio", "ray"),
}

_PROBE = """
import json, sys
sys.argv = ["lf-export", *sys.argv[1:]]
from lf_export.cli import main
try:
    main()
except SystemExit as end:
    print(json.dumps({"status": end.code, "modules": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


def _cpu_seconds(code: str) -> float:
    probe = f"import time\n{code}\nprint(time.process_time())"
    done = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command: str) -> None:
    arguments = [*command.split(), "--help"]
    done = subprocess.run([sys.executable, "-c", _PROBE, *arguments], check=True, capture_output=True, text=True)
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["status"] == 0
    assert "Usage: lf-export" in done.stdout
    assert not HEAVY & set(last["modules"])


def test_the_command_line_starts_within_60_ms_of_click() -> None:
    # CPU time, not wall time; the least of several runs, for the machine may be busy
    ours = min(_cpu_seconds("import lf_export.cli") for _ in range(5))
    clicks = min(_cpu_seconds("import click") for _ in range(5))
    assert ours - clicks < 0.060


@pytest.mark.parametrize(
    ("error", "status"), [(InputError("x"), 3), (MissingError("x"), 4), (StepError("x"), 5), (ValueError("x"), 1)]
)
def test_each_error_leaves_with_its_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, status: int
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(cli.app, "main", fail)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == status
    shown = capsys.readouterr().err
    assert ("Traceback" in shown) == (status == 1)
    assert "error: " in shown


def test_every_line_of_an_error_and_its_hint_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise InputError.of(["a:1: one", "a:2: two"], "mend it")

    monkeypatch.setattr(cli.app, "main", fail)
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err == "error: a:1: one\nerror: a:2: two\nhint: mend it\n"


def test_a_wrong_command_line_leaves_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["lf-export", "merge", "base"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert "Missing" in capsys.readouterr().err


def test_an_interruption_says_that_the_run_can_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.app, "main", interrupt)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 5
    assert "run the same command again" in capsys.readouterr().err


def test_every_class_of_error_has_the_status_of_its_kind() -> None:
    assert {kind: kind.status for kind in (InputError, MissingError, StepError, ExportError)} == {
        InputError: 3,
        MissingError: 4,
        StepError: 5,
        ExportError: 5,
    }
