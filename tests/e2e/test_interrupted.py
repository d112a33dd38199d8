"""The command `quantize`, stopped from outside in the middle, and started again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from models import tiny_model

LAYERS = 24  # enough for a second after the first


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("interrupted") / "model", num_hidden_layers=LAYERS)


@pytest.fixture(scope="module")
def calibration(model: Path) -> Path:
    out = model.parent / "set"
    finish(command("calibrate", model, "--num-samples", "8", "-o", out))
    return out


@pytest.fixture(scope="module")
def undisturbed(model: Path, calibration: Path) -> dict[str, bytes]:
    out = model.parent / "undisturbed"
    finish(quantize(model, calibration, out))
    return files(out)


def command(*arguments: str | Path) -> subprocess.Popen[str]:
    """A process of the command line, one thread."""
    environment = {**os.environ, "LF_EXPORT_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "lf_export", *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(running: subprocess.Popen[str]) -> str:
    """Wait until it has done its work; what it said."""
    _, said = running.communicate()
    assert running.returncode == 0, said
    return said


def quantize(model: Path, calibration: Path, out: Path) -> subprocess.Popen[str]:
    """Two formats in one pass."""
    formats = ["--format", "gptq", "--format", "gguf:Q4_0"]
    return command("quantize", model, *formats, "--calibration", calibration, "-o", out)


def stop(running: subprocess.Popen[str], out: Path, sent: signal.Signals) -> None:
    """Send the signal when a layer is done."""
    while not list(out.glob(".*/.walk/state.json")):
        assert running.poll() is None, running.communicate()
        time.sleep(0.005)
    running.send_signal(sent)


def files(out: Path) -> dict[str, bytes]:
    """What is in the artifacts."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 5), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_stopped_command_goes_on_and_writes_what_an_undisturbed_one_does(
    model: Path, calibration: Path, undisturbed: dict[str, bytes], tmp_path: Path, sent: signal.Signals, status: int
) -> None:
    out = tmp_path / "stopped"
    running = quantize(model, calibration, out)
    stop(running, out, sent)
    _, said = running.communicate()
    assert running.returncode == status, said
    if sent is not signal.SIGKILL:
        assert "go on" in said
        assert "Traceback" not in said
    assert not [path for path in out.iterdir() if not path.name.startswith(".")]
    assert "going on at layer" in finish(quantize(model, calibration, out))
    assert files(out) == undisturbed
