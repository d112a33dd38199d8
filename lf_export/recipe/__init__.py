"""The typed recipe: what a release run does, read from YAML, every mistake at once with file and line."""

from lf_export.recipe.load import load_recipe
from lf_export.recipe.model import (
    AdapterSource,
    BaseSource,
    BenchRecipe,
    CalibrationRecipe,
    EndpointRecipe,
    MergeRecipe,
    Recipe,
    SuiteRecipe,
)
from lf_export.recipe.override import Override, overrides_from, read_overrides
from lf_export.recipe.schema import recipe_schema, recipe_value, recipe_yaml, schema_text
from lf_export.recipe.speed import LatencyRecipe
from lf_export.recipe.targets import AwqTarget, GgufTarget, GptqTarget, LinearOverride, OnnxTarget, Target
from lf_export.recipe.verdict import GateRecipe, SignRecipe

__all__ = [
    "AdapterSource",
    "AwqTarget",
    "BaseSource",
    "BenchRecipe",
    "CalibrationRecipe",
    "EndpointRecipe",
    "GateRecipe",
    "GgufTarget",
    "GptqTarget",
    "LatencyRecipe",
    "LinearOverride",
    "MergeRecipe",
    "OnnxTarget",
    "Override",
    "Recipe",
    "SignRecipe",
    "SuiteRecipe",
    "Target",
    "load_recipe",
    "overrides_from",
    "read_overrides",
    "recipe_schema",
    "recipe_value",
    "recipe_yaml",
    "schema_text",
]
