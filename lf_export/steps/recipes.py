"""Recipes as files: those that ship, a copy of one to edit, and what a recipe says when its defaults are filled in."""

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lf_export.checkpoint.staging import disk_errors
from lf_export.errors import InputError
from lf_export.recipe import Recipe, load_recipe
from lf_export.shipped import shipped

SCHEMA_NAME = "recipe.schema.json"
"""The schema lies beside the recipes, so that the line for editors in each of them is right wherever they lie."""

_SHIPPED = "shipped:"
_ENDING = ".yaml"
_COMMENT = re.compile(r"#\s?(?!\s*yaml-language-server)(.*)")


@dataclass(frozen=True)
class ShippedRecipe:
    """A recipe that ships: its name after `shipped:`, what its first comment says, and its file."""

    name: str
    summary: str
    path: Path

    def facts(self) -> dict[str, Any]:
        """As JSON values; the file's folder depends on the machine and is left out."""
        return {"name": self.name, "summary": self.summary}


def recipe_file(path: Path) -> Path:
    """The recipe's file: `shipped:NAME`, with or without `.yaml`, is one that ships, all else a path.

    Raises:
        InputError: no recipe of that name ships.
    """
    text = str(path)
    if not text.startswith(_SHIPPED):
        return path
    name = text.removeprefix(_SHIPPED)
    known = {each.name: each.path for each in shipped_recipes()}
    if name.removesuffix(_ENDING) in known:
        return known[name.removesuffix(_ENDING)]
    raise InputError(f"no recipe named {name!r} ships, expected one of: {', '.join(known)}", "lf-export recipe list")


def shipped_recipes() -> list[ShippedRecipe]:
    """Every recipe that ships, by name."""
    files = sorted(shipped("recipes").glob(f"*{_ENDING}"))
    return [ShippedRecipe(file.name.removesuffix(_ENDING), _summary(file), file) for file in files]


def list_text(recipes: Iterable[ShippedRecipe]) -> str:
    """A line for each recipe."""
    rows = [(each.name, each.summary) for each in recipes]
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:<{width}}  {summary}" for name, summary in rows)


def check_text(path: Path, recipe: Recipe) -> str:
    """One line that says what a recipe without mistakes asks for."""
    judged = "no bench" if recipe.bench is None else f"margin {recipe.gate.margin:g}"
    return f"{path}: {recipe.name}: {len(recipe.quantize)} artifacts ({', '.join(recipe.quantize)}), {judged}"


def copy_recipe(name: str, folder: Path) -> list[Path]:
    """Copy a shipped recipe, the schema, and what it names beside itself into `folder`; returns what was written.

    Raises:
        InputError: no such recipe ships, or a file of its is there already: nothing is written then.
        StepError: the folder cannot be written.
    """
    source = recipe_file(Path(f"{_SHIPPED}{name.removeprefix(_SHIPPED)}"))
    root = source.parent
    files = [source, root / SCHEMA_NAME, *_beside(load_recipe(source), root)]
    targets = {file: folder / file.relative_to(root) for file in files if file.is_file()}
    present = [target for target in targets.values() if target.exists() and target.name != SCHEMA_NAME]
    if present:
        raise InputError.of([f"{target}: exists already" for target in present[:8]], "choose another folder")
    with disk_errors(folder):
        for file, target in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    return list(targets.values())


def _beside(recipe: Recipe, root: Path) -> list[Path]:
    """The files of the folders that a recipe names relative to itself, caches apart."""
    named = [recipe.base.path, *(adapter.path for adapter in recipe.adapters)]
    folders = {root / name for name in named if name and (root / name).is_dir()}
    if recipe.base.script:
        folders.add((root / recipe.base.script).parent)
    found = {file for folder in folders if folder != root for file in folder.rglob("*") if file.is_file()}
    return sorted(file for file in found if "__pycache__" not in file.parts)


def _summary(file: Path) -> str:
    """The first sentence of a recipe's comments."""
    words = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if found := _COMMENT.match(line):
            words.append(found[1].strip())
    return re.split(r"(?<=[.])\s", " ".join(words), maxsplit=1)[0]
