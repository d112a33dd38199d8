"""Run tests against the installed wheel, with the source gone.

    python tests/installed.py [TEST…]

Builds the sdist and from it the wheel, installs that into a new virtual environment, copies the tests and the pages to
a folder without the package, its recipes and its data, and runs them there. Other packages are those of this Python: a
path file shows their folder to the new environment, without the files in it that point to a source tree.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Tests of the source tree itself: its layers, its data's generator, its image, its packages.
OF_THE_TREE = (
    "test_architecture.py",
    "unit/test_code_blocks.py",
    "unit/test_dockerfile.py",
    "unit/test_docs.py",
    "unit/test_shipped_data.py",
    "unit/test_site.py",
    "e2e/test_wheel.py",
)
USUAL = ("unit", "property", "e2e/test_commands.py", "e2e/test_json.py", "e2e/test_python_api.py", "e2e/test_run.py")


def build(folder: Path) -> tuple[Path, Path]:
    """The sdist and the wheel made of it, in `folder`, by the build backend that is installed here."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


def install(wheel: Path, folder: Path) -> Path:
    """A virtual environment in `folder` with the wheel and this Python's other packages; returns its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--no-index", "--no-deps", str(wheel)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python


def copy_tests(folder: Path) -> Path:
    """The tests and the pages in `folder`; nothing of the package, of its recipes or of its data."""
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__", "docker"))
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    for name in OF_THE_TREE:
        (folder / "tests" / name).unlink()
    return folder


def run(python: Path, folder: Path, tests: Sequence[str], *options: str) -> subprocess.CompletedProcess[str]:
    """Run tests of `copy_tests` by the Python of `install`; programs beside this Python are found, too."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
    path = os.pathsep.join([str(python.parent), sysconfig.get_path("scripts"), kept.get("PATH", "")])
    command = [str(python), "-m", "pytest", "-p", "no:cacheprovider", *options]
    return subprocess.run(
        [*command, *(f"tests/{name}" for name in tests)],
        cwd=folder, env={**kept, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}, check=False,
        stdout=subprocess.PIPE if "-q" in options else None, text=True,
    )  # fmt: skip


def main() -> None:
    """Build, install, copy, run; leaves with pytest's status."""
    with tempfile.TemporaryDirectory(prefix="lf-export-installed-") as scratch:
        folder = Path(scratch)
        _, wheel = build(folder / "dist")
        python = install(wheel, folder / "venv")
        sys.exit(run(python, copy_tests(folder / "copy"), sys.argv[1:] or USUAL).returncode)


if __name__ == "__main__":
    main()
