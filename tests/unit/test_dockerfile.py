"""The Dockerfile keeps hadolint's rules."""

import subprocess
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HADOLINT = Path(sysconfig.get_path("scripts")) / "hadolint"


def lint(dockerfile: Path) -> str:
    ended = subprocess.run([HADOLINT, dockerfile], capture_output=True, text=True, check=False, timeout=60)
    return ended.stdout + ended.stderr


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    assert lint(ROOT / "Dockerfile") == ""


def test_hadolint_would_find_a_mistake(tmp_path: Path) -> None:
    broken = tmp_path / "Dockerfile"
    broken.write_text("FROM debian:latest\nRUN cd /tmp\n", encoding="utf-8")
    assert "DL3007" in lint(broken)
