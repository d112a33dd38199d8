"""The schema for editors says what the loader says, and a recipe that is shown is the same recipe."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from lf_export.recipe import load_recipe, recipe_schema, recipe_value, recipe_yaml, schema_text
from lf_export.shipped import shipped

RECIPES = sorted(shipped("recipes").glob("*.yaml"))
VALIDATOR = Draft202012Validator(recipe_schema())


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(json.loads(schema_text()))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_that_ships_fits_the_schema(path: Path) -> None:
    assert list(VALIDATOR.iter_errors(yaml.safe_load(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_that_ships_names_the_schema_beside_it(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    name = first.removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / name).read_text(encoding="utf-8") == schema_text()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_that_is_shown_loads_to_the_same_recipe(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    again = tmp_path / "again.yaml"
    again.write_text(recipe_yaml(recipe), encoding="utf-8")
    assert load_recipe(again) == recipe
    assert list(VALIDATOR.iter_errors(recipe_value(recipe))) == []


def test_overrides_are_shown_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    overrides = {"*.z": {"bits": 8}, "*.a": {"skip": True}}
    value: dict[str, Any] = {"name": "x", "base": {"path": "b"}, "adapters": ["a"], "output": "o"}
    value["quantize"] = {"q": {"format": "gptq", "overrides": overrides}}
    path.write_text(json.dumps(value), encoding="utf-8")
    recipe = load_recipe(path)
    assert list(recipe_value(recipe)["quantize"]["q"]["overrides"].items()) == list(overrides.items())


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("base", {"path": "a", "script": "b"}),
        ("adapters", [3]),
        ("adapters", []),
        ("gate", {"margn": 0.1}),
        ("calibration", {"dialect": "llama"}),
        ("quantize", {"q": {"format": "gguf", "type": "Q9"}}),
    ],
)
def test_what_the_loader_refuses_does_not_fit_the_schema(key: str, wrong: object) -> None:
    value = yaml.safe_load(RECIPES[0].read_text(encoding="utf-8")) | {key: wrong}
    assert list(VALIDATOR.iter_errors(value))
