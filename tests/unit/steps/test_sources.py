"""Inputs are found where the recipe says, and a script that prepares a base model is held to its promise."""

from pathlib import Path

import pytest

from lf_export.errors import InputError, MissingError, StepError
from lf_export.recipe import BaseSource
from lf_export.steps.sources import base_path, data_path, shown_path, suite_fingerprint, suite_source


def _script(folder: Path, body: str) -> BaseSource:
    (folder / "prepare.py").write_text(body, encoding="utf-8")
    return BaseSource(script="prepare.py")


def test_a_path_is_relative_to_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    assert base_path(BaseSource(path="base"), tmp_path, prepare=True) == tmp_path / "base"
    with pytest.raises(InputError, match="no such folder"):
        base_path(BaseSource(path="other"), tmp_path, prepare=True)


def test_the_last_line_that_a_script_prints_is_the_folder(tmp_path: Path) -> None:
    source = _script(
        tmp_path, f"import os\nos.makedirs({str(tmp_path / 'made')!r})\nprint('x')\nprint({str(tmp_path / 'made')!r})"
    )
    assert base_path(source, tmp_path, prepare=True) == tmp_path / "made"


def test_a_script_is_only_asked_where_the_folder_would_be_when_nothing_is_prepared(tmp_path: Path) -> None:
    source = _script(tmp_path, f"import sys\nassert '--where' in sys.argv\nprint({str(tmp_path / 'made')!r})")
    assert base_path(source, tmp_path, prepare=False) is None
    (tmp_path / "made").mkdir()
    assert base_path(source, tmp_path, prepare=False) == tmp_path / "made"


@pytest.mark.parametrize(
    ("body", "what"),
    [("import sys; sys.exit(7)", "exit status 7"), ("", "printed nothing"), ("print('/no/such')", "not a folder")],
)
def test_a_script_that_fails_is_a_step_error(tmp_path: Path, body: str, what: str) -> None:
    with pytest.raises(StepError, match=what):
        base_path(_script(tmp_path, body), tmp_path, prepare=True)


def test_a_script_outside_the_recipes_folder_is_never_run(tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "evil.py").write_text("print('/')", encoding="utf-8")
    with pytest.raises(InputError, match="outside the recipe's folder"):
        base_path(BaseSource(script="../evil.py"), tmp_path / "recipe", prepare=True)
    with pytest.raises(MissingError, match="no such script"):
        base_path(BaseSource(script="none.py"), tmp_path / "recipe", prepare=True)


def test_data_is_shipped_or_relative(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").touch()
    assert data_path("mine.jsonl", tmp_path) == tmp_path / "mine.jsonl"
    assert data_path("shipped:suites/calls.jsonl").name == "calls.jsonl"
    with pytest.raises(InputError, match="no such file"):
        data_path("other.jsonl", tmp_path)
    with pytest.raises(InputError, match="ships under calibration"):
        data_path("shipped:other.jsonl")


def test_a_report_names_a_file_alike_on_every_machine(tmp_path: Path) -> None:
    assert shown_path("shipped:suites/calls.jsonl") == "shipped:suites/calls.jsonl"
    assert shown_path(data_path("shipped:suites/calls.jsonl")) == "shipped:suites/calls.jsonl"
    assert shown_path(tmp_path / "mine.jsonl") == "mine.jsonl"


def test_a_suite_is_a_file_the_leaderboards_data_or_a_dataset_of_the_hub(tmp_path: Path) -> None:
    (tmp_path / "bfcl.whl").write_bytes(b"x")
    (tmp_path / "mine.jsonl").write_text("{}", encoding="utf-8")
    assert suite_source("bfcl:bfcl.whl", tmp_path) == f"bfcl:{tmp_path / 'bfcl.whl'}"
    assert suite_source("mine.jsonl", tmp_path) == str(tmp_path / "mine.jsonl")
    assert suite_source("hf:owner/name:test", tmp_path) == "hf:owner/name:test"
    with pytest.raises(InputError, match=r"none\.whl: no such file or folder"):
        suite_source("bfcl:none.whl", tmp_path)


def test_a_suite_is_told_apart_by_its_files_and_shown_without_folders(tmp_path: Path) -> None:
    source = f"bfcl:{tmp_path / 'bfcl.whl'}"
    (tmp_path / "bfcl.whl").write_bytes(b"x")
    before = suite_fingerprint(source)
    (tmp_path / "bfcl.whl").write_bytes(b"longer")
    assert suite_fingerprint(source) != before
    assert suite_fingerprint("hf:owner/name") == ["hf:owner/name"]
    assert [shown_path(text) for text in (source, "hf:owner/name")] == ["bfcl:bfcl.whl", "hf:owner/name"]
