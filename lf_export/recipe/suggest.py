"""What a mistake in a recipe was probably meant to be: the nearest key of its section, the nearest value."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

_QUOTED = re.compile(r"'([^']*)'")
Location = tuple[str | int, ...]


def did_you_mean(wrong: object, known: Iterable[object]) -> str:
    """`; did you mean 'x'?` for the nearest of `known`, or nothing where none is near."""
    names = {str(each).lower(): str(each) for each in known}
    close = difflib.get_close_matches(str(wrong).lower(), names, n=1)
    return f"; did you mean {names[close[0]]!r}?" if close else ""


def expected_in(context: Mapping[str, Any]) -> list[str]:
    """The values that Pydantic's error names as expected, where it names any."""
    return _QUOTED.findall(str(context.get("expected", "")) or str(context.get("expected_tags", "")))


def key_suggestion(root: type[BaseModel], value: object, location: Location) -> str:
    """What an unknown key was meant to be: the nearest of its own section, else the section that it belongs to.

    Args:
        root: the type of the whole.
        value: what the file says, by which a target's type is known.
        location: of the key.
    """
    wrong = str(location[-1])
    own = next((section for section in _at(root, value, location[:-1]) if section is not None), None)
    if own is not None and (near := did_you_mean(wrong, own.model_fields)):
        return near
    places = {f"{place}.{name}" if place else name for place, name in _keys(root) if name == wrong}
    if places:
        return f"; it is a key of {' and of '.join(sorted(each.rpartition('.')[0] or 'the recipe' for each in places))}"
    return did_you_mean(wrong, {name for _, name in _keys(root)}) if own is None else ""


def _at(kind: Any, value: object, location: Location) -> Iterator[type[BaseModel] | None]:
    """The sections that may stand at `location`."""
    for each in _sections(kind, value):
        if not location:
            yield each if isinstance(each, type) and issubclass(each, BaseModel) else None
            continue
        part, rest = location[0], location[1:]
        inner = _inside(value, part)
        if isinstance(each, type) and issubclass(each, BaseModel):
            if isinstance(part, str) and part in each.model_fields:
                yield from _at(each.model_fields[part].annotation, inner, rest)
        elif get_origin(each) in {dict, list, tuple}:
            yield from _at(get_args(each)[-1], inner, rest)


def _sections(kind: Any, value: object) -> Iterator[Any]:
    """What a type is without its wrapping; of the kinds of target the one whose format the file names."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        yield from _sections(arguments[0], value)
    elif origin in {Union, UnionType}:
        named = value.get("format") if isinstance(value, dict) else None
        for each in arguments:
            if each is not NoneType and (named is None or named in _formats(each) or not _formats(each)):
                yield from _sections(each, value)
    else:
        yield kind


def _formats(kind: Any) -> tuple[str, ...]:
    field = kind.model_fields.get("format") if isinstance(kind, type) and issubclass(kind, BaseModel) else None
    return get_args(field.annotation) if field is not None and get_origin(field.annotation) is Literal else ()


def _inside(value: object, part: str | int) -> object:
    if isinstance(value, dict):
        return value.get(part)
    return value[part] if isinstance(value, list) and isinstance(part, int) and part < len(value) else None


def _keys(kind: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Every key of a recipe as (section, name)."""
    for each in _sections(kind, None):
        if isinstance(each, type) and issubclass(each, BaseModel):
            for name, field in each.model_fields.items():
                yield place, name
                yield from _keys(field.annotation, f"{place}.{name}" if place else name)
        elif get_origin(each) in {dict, list, tuple} and get_args(each):
            yield from _keys(get_args(each)[-1], f"{place}.NAME" if get_origin(each) is dict else f"{place}[]")
