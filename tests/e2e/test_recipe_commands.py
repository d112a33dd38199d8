"""`lf-export recipe` and `run --set`: what they print, and how they leave."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

Run = Callable[..., Any]


def test_a_good_recipe_is_said_to_be_one(lf_export: Run, recipe: Callable[..., Path]) -> None:
    path = recipe()
    ended = lf_export("recipe", "check", path)
    assert (ended.status, ended.err) == (0, "")
    assert ended.out == f"{path}: tiny: 3 artifacts (four, q8, q4), margin 0.05\n"
    ended = lf_export("recipe", "check", path, "--json")
    assert json.loads(ended.out) == {"valid": True, "name": "tiny", "artifacts": ["four", "q8", "q4"]}


def test_every_mistake_is_said_at_once_with_its_line(lf_export: Run, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(
        "name: x\nbase: {pth: b}\nadapters: [a]\noutput: o\nquantize:\n  q: {format: ggfu}\ngate: {margn: 0.1}\n",
        encoding="utf-8",
    )
    ended = lf_export("recipe", "check", path)
    assert (ended.status, ended.out) == (3, "")
    lines = ended.err.splitlines()
    assert [line.split(": ")[1] for line in lines[:-1]] == [f"{path}:{line}" for line in (2, 6, 7)]
    assert "did you mean 'path'?" in lines[0]
    assert "did you mean 'gguf'?" in lines[1]
    assert "did you mean 'margin'?" in lines[2]
    assert lines[-1].startswith("hint: ")


def test_what_is_shown_is_the_recipe_with_its_defaults(
    lf_export: Run, recipe: Callable[..., Path], tmp_path: Path
) -> None:
    shown = lf_export("recipe", "show", recipe(), "--set", "gate.alpha=0.1")
    value = yaml.safe_load(shown.out)
    assert value["gate"]["alpha"] == 0.1
    assert value["gate"]["margin"] == 0.05
    assert json.loads(lf_export("recipe", "show", recipe(), "--set", "gate.alpha=0.1", "--json").out) == value
    again = tmp_path / "again.yaml"
    again.write_text(shown.out, encoding="utf-8")
    assert lf_export("recipe", "show", again).out == shown.out


def test_shipped_recipes_are_listed_and_copied(lf_export: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [each["name"] for each in json.loads(lf_export("recipe", "list", "--json").out)]
    assert {"quickstart", "release"} <= set(names)
    assert all(name in lf_export("recipe", "list").out for name in names)
    monkeypatch.chdir(tmp_path)
    copied = lf_export("recipe", "copy", "release", ".")
    assert copied.status == 0
    assert "release.yaml" in copied.out.splitlines()
    assert lf_export("recipe", "check", "release.yaml").status == 0
    assert lf_export("recipe", "copy", "release", ".").status == 3
    assert lf_export("recipe", "check", "shipped:relase").status == 3


def test_the_schema_is_printed(lf_export: Run, recipe: Callable[..., Path]) -> None:
    schema = json.loads(lf_export("recipe", "schema").out)
    assert Draft202012Validator(schema).is_valid(yaml.safe_load(recipe().read_text(encoding="utf-8")))


def test_a_value_that_is_set_changes_the_steps_that_depend_on_it(lf_export: Run, recipe: Callable[..., Path]) -> None:
    def digests(*settings: str) -> dict[str, str]:
        options = [part for setting in settings for part in ("--set", setting)]
        ended = lf_export("run", recipe(), "--dry-run", "--json", *options)
        assert ended.status == 0, ended.err
        return {step["name"]: step["digest"] for step in json.loads(ended.out)["steps"]}

    before, after = digests(), digests("quantize.q4.type=Q5_K_M")
    assert {name for name in before if before[name] != after[name]} == {"q4", "bench"}
    assert digests("calibration.seed=1")["four"] != before["four"]


def test_a_wrong_setting_leaves_with_3(lf_export: Run, recipe: Callable[..., Path]) -> None:
    ended = lf_export("run", recipe(), "--dry-run", "--set", "gate.margin=2")
    assert ended.status == 3
    assert ended.err.startswith("error: --set gate.margin=2: gate.margin: input should be less than 1, found 2\n")
    assert lf_export("run", recipe(), "--set").status == 2
