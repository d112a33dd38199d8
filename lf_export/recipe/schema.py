"""A recipe's other forms: the JSON Schema that editors check it with, and the YAML of a recipe with its defaults."""

import json
from typing import Any

import yaml

from lf_export.recipe.model import Recipe

_OVERRIDES = "overrides"


def recipe_schema() -> dict[str, Any]:
    """The JSON Schema of a recipe; what types cannot say, such as names of other artifacts, is not in it."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema(mode="validation")}


def schema_text() -> str:
    """The schema as it stands in the reference."""
    return json.dumps(recipe_schema(), indent=1, ensure_ascii=False) + "\n"


def recipe_value(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON values, every default filled in. Law: it validates to the same recipe."""
    value = recipe.model_dump(mode="json")
    for target in value["quantize"].values():
        if _OVERRIDES in target:  # pairs keep their order in digests; a recipe has a mapping
            target[_OVERRIDES] = dict(target[_OVERRIDES])
    return value


def recipe_yaml(recipe: Recipe) -> str:
    """The recipe as YAML, every default filled in. Law: it loads to the same recipe."""
    return str(yaml.safe_dump(recipe_value(recipe), sort_keys=False, allow_unicode=True, width=120))
