"""Read a recipe: YAML to a `Recipe`, every mistake at once in the form `file:line: what`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from lf_export.errors import InputError
from lf_export.recipe.model import RESERVED_NAMES, Recipe
from lf_export.recipe.override import Override, apply
from lf_export.recipe.suggest import Location, did_you_mean, expected_in, key_suggestion
from lf_export.recipe.yaml_events import check_events
from lf_export.shipped import shipped

_MAX_BYTES = 1 << 20
_MAX_DEPTH = 50
_UNREADABLE = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError)
"""What PyYAML raises where a value is not what its tag says."""

_SHIPPED = "shipped:"
Places = dict[Location, str]
"""Where each key stands: `recipe.yaml:7`, or the `--set` that gave it."""


def load_recipe(path: Path, overrides: Sequence[Override] = ()) -> Recipe:
    """The recipe in the YAML file at `path`, with values of `overrides` in place of its own.

    Raises:
        InputError: the file cannot be read, is not YAML, or says something that a recipe cannot; all mistakes
            are in the one error, each with file and line.
    """
    root = _compose(path)
    lines: dict[Location, int] = {}
    problems = [f"{path}:{line}: {what}" for line, what in _index(root, (), lines)]
    if problems:
        raise InputError.of(problems)
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except _UNREADABLE as error:  # such as the date 2020-99-99, `!!bool x`, an object as a key
        raise InputError(f"{path}: not YAML: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}:1: expected a mapping with the keys of a recipe, found {_kind(value)}")
    places = {location: f"{path}:{line}" for location, line in lines.items()}
    for location, origin in apply(value, overrides):
        for stale in [each for each in places if each[: len(location)] == location]:
            del places[stale]
        places[location] = origin
    found = [_located(location, what, places) for location, what in _name_mistakes(value)]
    found += [_located(location, what, places) for location, what in _shipped_mistakes(value)]
    recipe = None
    try:
        recipe = Recipe.model_validate(value)
    except ValidationError as error:
        found += [_problem(dict(item), value, places) for item in error.errors()]
    if recipe is None or found:
        raise InputError.of(sorted(set(found), key=_line_of), "docs/reference/recipe.md describes every key")
    return recipe


def _compose(path: Path) -> yaml.Node:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path}: larger than 1 MiB, expected a recipe")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such recipe") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        check_events(text, str(path), _MAX_DEPTH, f"not YAML of a recipe: nested deeper than {_MAX_DEPTH} levels")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{path}:{line}: not YAML: {error.problem}") from error
    except _UNREADABLE as error:
        raise InputError(f"{path}: not YAML: {error}") from error
    if node is None:
        raise InputError(f"{path}:1: empty, expected a recipe")
    return node


def _index(node: yaml.Node, location: Location, lines: dict[Location, int]) -> Iterator[tuple[int, str]]:
    """Fill `lines` with the line of each place; yields keys that are given twice."""
    lines.setdefault(location, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, child in node.value:
            name = str(key.value)
            line = key.start_mark.line + 1
            if name in seen:
                yield line, f"{_dotted((*location, name))}: given twice"
            seen.add(name)
            lines[(*location, name)] = line
            yield from _index(child, (*location, name), lines)
    elif isinstance(node, yaml.SequenceNode):
        for position, child in enumerate(node.value):
            yield from _index(child, (*location, position), lines)


def _name_mistakes(value: dict[str, Any]) -> Iterator[tuple[Location, str]]:
    """Names of artifacts that are reserved or taken, and names elsewhere in the recipe that no artifact has."""
    names = list(_mapping(value, "quantize"))
    bench = _mapping(value, "bench")
    servers = _mapping(bench, "endpoints")
    for location in [("quantize", name) for name in names] + [("bench", "endpoints", name) for name in servers]:
        if location[-1] in RESERVED_NAMES:
            yield location, "the name is reserved, expected another"
    for name in servers:
        if name in names:
            yield ("bench", "endpoints", name), "an artifact has that name, expected another"
    judged = [*names, *servers]
    enforce = _mapping(value, "gate").get("enforce")
    uses: list[tuple[Location, Any, list[Any]]] = []
    if isinstance(enforce, list):
        uses += [(("gate", "enforce", position), name, judged) for position, name in enumerate(enforce)]
    uses += [(("bench", "runtimes", name), name, names) for name in _mapping(bench, "runtimes")]
    uses += [
        (("bench", "endpoints", name, "artifact"), server["artifact"], names)
        for name, server in servers.items()
        if isinstance(server, dict) and server.get("artifact") is not None
    ]
    for where, name, known in uses:
        if name not in known:
            expected = ", ".join(map(str, known)) or "none"
            yield where, f"no artifact is named {name!r}, expected one of: {expected}{did_you_mean(name, known)}"


def _shipped_mistakes(value: dict[str, Any]) -> Iterator[tuple[Location, str]]:
    """Files that should ship with lf-export and do not."""
    calibration, bench = _mapping(value, "calibration"), _mapping(value, "bench")
    named: list[tuple[Location, Any]] = [
        (("calibration", part, position), name)
        for part in ("calls", "chat")
        if isinstance(calibration.get(part), list)
        for position, name in enumerate(calibration[part])
    ]
    named += [(("bench", part, "path"), _mapping(bench, part).get("path")) for part in ("calls", "no_call", "chat")]
    for location, name in named:
        if isinstance(name, str) and name.startswith(_SHIPPED):
            try:
                shipped("calibration", name.removeprefix(_SHIPPED))
            except InputError as error:
                yield location, error.message


def _mapping(value: dict[str, Any], key: str) -> dict[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def _located(location: Location, what: str, places: Places) -> str:
    known = location
    while known not in places:
        known = known[:-1]
    where = _dotted(location)
    return f"{places[known]}: {where + ': ' if where else ''}{what}"


def _problem(item: dict[str, Any], value: dict[str, Any], places: Places) -> str:
    location = _without_tags(item["loc"], value)
    what = str(item["msg"]).removeprefix("Value error, ")
    what = what[:1].lower() + what[1:]
    if item["type"] == "extra_forbidden":
        what = f"unknown key{key_suggestion(Recipe, value, location)}"
    elif item["type"] == "missing":
        what = "missing"
    elif item["type"] == "union_tag_invalid":
        expected = expected_in(item["ctx"])
        wrong = item["ctx"]["tag"]
        what = f"no format is named {wrong!r}, expected one of: {', '.join(expected)}{did_you_mean(wrong, expected)}"
    elif item["type"] not in {"value_error", "union_tag_not_found"}:
        what = f"{what}, found {item['input']!r}{did_you_mean(item['input'], expected_in(item.get('ctx', {})))}"
    return _located(location, what, places)


def _without_tags(location: Location, value: object) -> Location:
    """Pydantic puts the tag of a union into a location; the file does not have it."""
    kept: Location = ()
    for position, part in enumerate(location):
        # quantize.NAME.<tag>
        is_tag = part in {"gptq", "gguf", "awq", "onnx"} and position == 2 and location[0] == "quantize"
        if is_tag and not (isinstance(value, dict) and part in value):
            continue
        kept = (*kept, part)
        value = value.get(part) if isinstance(value, dict) else None
    return kept


def _dotted(location: Location) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _line_of(problem: str) -> tuple[int, str]:
    for part in problem.split(":"):
        if part.isdigit():
            return int(part), problem
    return 0, problem


def _kind(value: object) -> str:
    return {list: "a list", str: "text", type(None): "nothing"}.get(type(value), type(value).__name__)
