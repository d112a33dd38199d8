"""The wheel and the sdist hold what they must and nothing else, and the wheel works with the source gone."""

import functools
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from email import message_from_string
from pathlib import Path

import installed
import pytest

ROOT = installed.ROOT
SHIPPED = ("recipes", "calibration/suites", "calibration/calls.", "calibration/chat.")
SLICE = ("unit/recipe", "unit/cli/test_completion.py", "e2e/test_recipe_commands.py")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist and the wheel."""
    return installed.build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def python(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel."""
    return installed.install(built[1], tmp_path_factory.mktemp("venv") / "venv")


@functools.cache
def _tracked() -> frozenset[str]:
    """The files of the tree that git would take, asked of an empty repository: the tree itself may be none."""
    with tempfile.TemporaryDirectory() as folder:
        git = ["git", f"--git-dir={folder}", f"--work-tree={ROOT}"]
        subprocess.run([*git, "init", "--quiet"], check=True)
        command = [*git, "ls-files", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return frozenset(listed.stdout.splitlines())


def test_the_wheel_holds_the_package_the_recipes_and_the_data_and_nothing_else(built: tuple[Path, Path]) -> None:
    tracked = _tracked()
    with zipfile.ZipFile(built[1]) as wheel:
        names = set(wheel.namelist())
        assert wheel.testzip() is None
    expected = {name for name in tracked if name.startswith("lf_export/")}
    expected |= {f"lf_export/_data/{name}" for name in tracked if name.startswith(SHIPPED)}
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert len([name for name in expected if name.startswith("lf_export/_data/recipes/")]) > 10
    assert {"lf_export/py.typed", "lf_export/_data/calibration/suites/calls.jsonl"} <= names
    # a file of data that is new has to be named where the wheel is described
    data = {name for name in tracked if name.startswith("calibration/") and name.endswith((".jsonl", ".md"))}
    assert {f"lf_export/_data/{name}" for name in data} <= names


def test_the_wheel_says_what_it_needs_and_what_it_starts(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as wheel:
        (info,) = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
        said = message_from_string(wheel.read(f"{info}/METADATA").decode())
        assert "lf-export = lf_export.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()
        assert wheel.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert said["Name"] == "lf-export"
    assert said["Version"] == project["version"]
    assert said["License-Expression"] == "Apache-2.0"
    assert set(said.get_all("Provides-Extra") or []) == set(project["optional-dependencies"])
    assert len([each for each in said.get_all("Requires-Dist") or [] if "extra ==" not in each]) == len(
        project["dependencies"]
    )
    assert str(said.get_payload()).startswith("# lf-export")


def test_the_sdist_holds_the_whole_tree(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert names - {"PKG-INFO"} == _tracked()


def test_a_wheel_from_a_tree_with_leftovers_has_none_of_them(tmp_path: Path) -> None:
    """`pip install .` builds without an sdist between; caches of Python lie beside the recipes then."""
    for name in _tracked():
        if name.startswith(("lf_export", "recipes", "calibration")) or "/" not in name:
            (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / "tree" / name)
    for folder in ("lf_export", "recipes/quickstart", "calibration/suites"):
        (tmp_path / "tree" / folder / "__pycache__").mkdir()
        (tmp_path / "tree" / folder / "__pycache__" / "left.cpython-311.pyc").write_bytes(b"")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist"]
    subprocess.run([*command, tmp_path / "tree"], check=True, capture_output=True)
    (made,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(made) as wheel:
        assert [name for name in wheel.namelist() if "left" in name] == []
        assert "lf_export/_data/recipes/quickstart/fetch_base.py" in wheel.namelist()


def test_the_installed_command_has_its_recipes_and_data(python: Path, tmp_path: Path) -> None:
    def said(*command: str | Path) -> str:
        ended = subprocess.run(
            command, cwd=tmp_path, env={"HOME": str(tmp_path)}, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    code = "import lf_export, lf_export.shipped as s; print(lf_export.__file__); print(s.shipped('calibration'))"
    for path in said(python, "-c", code).split():
        assert path.startswith(str(python.parent.parent))
    command = python.with_name("lf-export")
    listed = json.loads(said(command, "recipe", "list", "--json"))
    assert {each["name"] for each in listed} == {path.stem for path in (ROOT / "recipes").glob("*.yaml")}
    said(command, "recipe", "copy", "release", tmp_path / "mine")
    assert (tmp_path / "mine" / "release.yaml").is_file()
    assert json.loads(said(command, "bench", "--plan", "--json"))


def test_tests_pass_against_the_installed_wheel_with_the_source_gone(python: Path, tmp_path: Path) -> None:
    copy = installed.copy_tests(tmp_path / "copy")
    assert not (copy / "lf_export").exists()
    # `make wheel-test` runs the rest of them so
    ended = installed.run(python, copy, SLICE, "-q", "-x")
    assert ended.returncode == 0, ended.stdout[-4000:]
    assert "passed" in ended.stdout
