"""JSON that strangers wrote: one place that reads it with bounds on size and depth, each name once, no NaN."""

import json
from pathlib import Path
from typing import Any

from lf_export.errors import InputError

MAX_BYTES = 100_000_000
"""The bound of a file: a tokenizer of 256,000 tokens takes about 35 MB."""

MAX_DEPTH = 100
"""The bound of nesting: deeper values would exhaust the stack of whatever walks them later."""


def read_json(path: Path) -> Any:
    """The JSON value in a file.

    Raises:
        InputError: the file cannot be read, is larger than `MAX_BYTES`, or `parse_json` refuses its text.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for, a device never ends
            raise InputError(f"{path}: not a regular file")
        with path.open("rb") as handle:
            text = handle.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if len(text) > MAX_BYTES:
        raise InputError(f"{path}: {path.stat().st_size:,} bytes, at most {MAX_BYTES:,} were expected")
    return parse_json(text, str(path))


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file, such as a config or an index.

    Raises:
        InputError: as `read_json`, and when the value is not an object.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path}: a JSON object was expected")
    return value


def parse_json(text: bytes, where: str) -> Any:
    """The value that `text` holds; `where` names its place in errors.

    Raises:
        InputError: it is not UTF-8 or not JSON, gives a name twice, nests deeper than `MAX_DEPTH`, or holds NaN or
            an infinity.
    """
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_once, parse_constant=_refuse)
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 (byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{where}:{error.lineno}: not JSON: {error.msg}") from error
    except RecursionError as error:
        raise InputError(f"{where}: not JSON: nested deeper than {MAX_DEPTH} levels") from error
    except ValueError as error:
        raise InputError(f"{where}: not JSON: {error}") from error
    _check_depth(value, where)
    return value


def _check_depth(value: Any, where: str) -> None:
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(MAX_DEPTH + 1):
        inner: list[Any] = []
        for each in level:
            inner.extend(each.values() if isinstance(each, dict) else each)
        level = [each for each in inner if isinstance(each, (dict, list))]
        if not level:
            return
    raise InputError(f"{where}: not JSON: nested deeper than {MAX_DEPTH} levels")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is given twice")
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON number")
