"""Values that the command line gives instead of a recipe's own: `--set KEY=VALUE`."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import yaml

from lf_export.errors import InputError
from lf_export.recipe.yaml_events import check_events

Location = tuple[str | int, ...]

_MAX_TEXT = 1 << 16
_DEEPEST = 32
_PART = re.compile(r"([^\[\]]*)((?:\[\d{1,6}\])*)\Z")
_ELSEWHERE = ("shipped:", "hf:")
_BFCL = "bfcl:"
# Keys whose values are paths: of the command line's values these are relative to the folder that it is started in.
_PATHS = (
    re.compile(r"base\.path\Z"),
    re.compile(r"adapters\[\d+\](\.path)?\Z"),
    re.compile(r"calibration\.(calls|chat)\[\d+\]\Z"),
    re.compile(r"bench\.(calls|no_call|chat)\.path\Z"),
    re.compile(r"quantize\..+\.imatrix\Z"),
)


@dataclass(frozen=True)
class Override:
    """One `--set`: the text as it was given, its key, its value."""

    text: str
    key: str
    value: Any

    @property
    def origin(self) -> str:
        """How a mistake in it is located."""
        return f"--set {self.text if len(self.text) <= 80 else self.text[:79] + '…'}"


def read_overrides(texts: Sequence[str], folder: Path | None = None) -> list[Override]:
    """The overrides in `KEY=VALUE` texts; a value is YAML, and paths are taken from `folder`, the working folder.

    Raises:
        InputError: a text without a key, or a value that is not YAML; all of them at once.
    """
    found, problems = [], []
    for text in texts:
        key, equals, value = text.partition("=")
        try:
            if not equals or not key.strip():
                raise InputError(f"--set {text[:80]!r}: expected KEY=VALUE, such as base.path=models/base")  # noqa: TRY301
            found.append(_absolute(Override(text, key.strip(), _value(text, value)), folder or Path.cwd()))
        except InputError as error:
            problems.append(error.message)
    if problems:
        raise InputError.of(problems)
    return found


def overrides_from(values: Mapping[str, Any], folder: Path | None = None) -> list[Override]:
    """The overrides of values by key, as Python has them; paths are taken from `folder`, the working folder."""
    there = folder or Path.cwd()
    return [_absolute(Override(f"{key}={value}", key, _plain(value)), there) for key, value in values.items()]


def _plain(value: Any) -> Any:
    """A value as YAML would have given it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, PurePath) else value


def apply(value: dict[str, Any], overrides: Sequence[Override]) -> list[tuple[Location, str]]:
    """Put the overrides into a recipe's plain value, in order; returns each one's location and its origin.

    Raises:
        InputError: a key that leads nowhere: into what is no mapping, or to an item that a list does not have.
    """
    placed, problems = [], []
    for override in overrides:
        try:
            placed.append((_put(value, override), override.origin))
        except InputError as error:
            problems.append(error.message)
    if problems:
        raise InputError.of(problems)
    return placed


def _value(text: str, value: str) -> Any:
    try:
        if len(value) > _MAX_TEXT:
            raise InputError(f"--set {text[:40]}…: larger than 64 KiB")
        check_events(value, f"--set {text[:80]}", _DEEPEST, f"nested more than {_DEEPEST} deep")
        return yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        said = getattr(error, "problem", None) or str(error)
        raise InputError(f"--set {text[:80]}: the value is not YAML: {said}", "quote a text that YAML reads") from error


def _put(root: dict[str, Any], override: Override) -> Location:
    parts = _parts(override)
    location: Location = ()
    node: Any = root
    while parts:
        if isinstance(node, dict):
            # A name may have dots: what is there already is taken by its longest name.
            known = [size for size in range(len(parts), 0, -1) if _joined(parts[:size]) in node]
            size = known[0] if known else 1
            step: str | int = _joined(parts[:size]) or parts[0]
        else:
            step, size = parts[0], 1
        parts = parts[size:]
        location = (*location, step)
        if isinstance(node, list) and isinstance(step, int):
            if step > len(node) or (step == len(node) and parts):
                raise InputError(f"{override.origin}: no item {step}, there are {len(node)}")
            if step == len(node):
                node.append(None)
        elif not isinstance(node, dict) or not isinstance(step, str):
            raise InputError(
                f"{override.origin}: {'a key' if isinstance(step, str) else 'an item'} {step!r} "
                f"of what is not a {'mapping' if isinstance(step, str) else 'list'}"
            )
        if not parts:
            node[step] = override.value
        elif isinstance(node, dict) and node.get(step) is None:
            node[step] = [] if isinstance(parts[0], int) else {}
        node = node[step]
    return location


def _joined(parts: Sequence[str | int]) -> str | None:
    return ".".join(map(str, parts)) if all(isinstance(part, str) for part in parts) else None


def _parts(override: Override) -> list[str | int]:
    parts: list[str | int] = []
    for piece in override.key.split("."):
        found = _PART.match(piece)
        if found is None or not found[1]:
            raise InputError(f"{override.origin}: {override.key!r} is no key, expected one such as gate.margin")
        parts.append(found[1])
        parts += [int(number) for number in re.findall(r"\d+", found[2])]
    return parts


def _absolute(override: Override, folder: Path) -> Override:
    return Override(
        override.text, override.key, _mapped(override.key, override.value, lambda text: _path(text, folder))
    )


def _mapped(key: str, value: Any, change: Callable[[str], str]) -> Any:
    """The value with `change` made to each path in it."""
    if isinstance(value, Mapping):
        return {name: _mapped(f"{key}.{name}", each, change) for name, each in value.items()}
    if isinstance(value, list):
        return [_mapped(f"{key}[{place}]", each, change) for place, each in enumerate(value)]
    if isinstance(value, str) and any(pattern.match(key) for pattern in _PATHS):
        return change(value)
    return value


def _path(text: str, folder: Path) -> str:
    if text.startswith(_ELSEWHERE):
        return text
    if text.startswith(_BFCL):
        return f"{_BFCL}{folder / Path(text.removeprefix(_BFCL)).expanduser()}"
    return str(folder / Path(text).expanduser())
