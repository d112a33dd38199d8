"""The layers of the package are what its documentation says, and the files stay readable."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "lf_export"
LONGEST = 400


def _layers() -> list[set[str]]:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = table["tool"]["importlinter"]["contracts"]
    return [{part.strip().removeprefix("lf_export.") for part in layer.split("|")} for layer in contract["layers"]]


def test_every_module_has_its_place_in_the_layers() -> None:
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert found - {"__init__", "__main__"} == set().union(*_layers())


def test_the_table_in_the_documentation_is_the_one_that_is_enforced() -> None:
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    block = page.split("```text\n", 1)[1].split("```", 1)[0]
    written = [{part.strip() for part in line.split("  ", 1)[0].split("|")} for line in block.strip().splitlines()]
    assert written == _layers()


def test_imports_go_one_way() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(linter)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_file_is_read_in_one_sitting() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for folder in ("lf_export", "tests", "benchmarks", "recipes", "docs", "calibration")
        for path in (ROOT / folder).rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST
    }
    assert long == {}


def test_there_is_no_catch_all_module() -> None:
    names = {path.stem for path in PACKAGE.rglob("*.py")}
    assert not names & {"utils", "util", "helpers", "common", "manager", "misc"}
