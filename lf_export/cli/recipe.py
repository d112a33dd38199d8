"""`lf-export recipe`: recipes as files."""

from pathlib import Path

import click

from lf_export.cli.options import FILE, FOLDER, json_option, set_option


@click.group(short_help="Check, show, list and copy recipes.")
def recipe() -> None:
    """Look at recipes without running them. RECIPE is a file, or shipped:NAME for one that ships."""


@recipe.command(short_help="Every mistake of a recipe.")
@click.argument("path", metavar="RECIPE", type=FILE)
@set_option
@json_option
def check(path: Path, settings: tuple[str, ...], as_json: bool) -> None:
    """Read RECIPE and say every mistake at once, with file and line; exit status 3 where there is one.

    Nothing that it names is opened but files that ship: `lf-export run --dry-run` looks at models and data too.
    """
    from lf_export.cli.output import emit
    from lf_export.recipe import load_recipe, read_overrides
    from lf_export.steps.recipes import check_text, recipe_file

    found = load_recipe(recipe_file(path), read_overrides(settings))
    emit(
        {"valid": True, "name": found.name, "artifacts": list(found.quantize)}, check_text(path, found), as_json=as_json
    )


@recipe.command(short_help="A recipe with its defaults filled in.")
@click.argument("path", metavar="RECIPE", type=FILE)
@set_option
@json_option
def show(path: Path, settings: tuple[str, ...], as_json: bool) -> None:
    """Print RECIPE as YAML with every default filled in; it is a recipe again, of the same meaning."""
    from lf_export.cli.output import emit
    from lf_export.recipe import load_recipe, read_overrides, recipe_value, recipe_yaml
    from lf_export.steps.recipes import recipe_file

    found = load_recipe(recipe_file(path), read_overrides(settings))
    emit(recipe_value(found), recipe_yaml(found).rstrip(), as_json=as_json)


@recipe.command("list", short_help="The recipes that ship.")
@json_option
def listed(as_json: bool) -> None:
    """Name the recipes that ship with lf-export; each runs as shipped:NAME."""
    from lf_export.cli.output import emit
    from lf_export.steps.recipes import list_text, shipped_recipes

    found = shipped_recipes()
    emit([each.facts() for each in found], list_text(found), as_json=as_json)


@recipe.command(short_help="A shipped recipe as a file to edit.")
@click.argument("name")
@click.argument("folder", type=FOLDER)
@json_option
def copy(name: str, folder: Path, as_json: bool) -> None:
    """Copy the shipped recipe NAME into FOLDER, with what it names beside itself and the schema for editors.

    A file that is there already is never replaced: exit status 3.
    """
    from lf_export.cli.output import emit
    from lf_export.steps.recipes import copy_recipe

    written = [str(path) for path in copy_recipe(name, folder)]
    emit({"written": written}, "\n".join(written), as_json=as_json)


@recipe.command(short_help="The JSON Schema of recipes.")
def schema() -> None:
    """Print the JSON Schema of recipes, for editors and for programs that write them."""
    from lf_export.recipe import schema_text

    click.echo(schema_text().rstrip())
