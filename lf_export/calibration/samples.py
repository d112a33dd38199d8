"""Files of conversations as samples: OpenAI messages with tools, `llama_functions` rows, plain text.

Every mistake of a file is told at once, each as `file:line: what`, so that an editor links it.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from lf_export.errors import InputError, MissingError
from lf_export.functions.answers import loads
from lf_export.functions.rows import read_row
from lf_export.functions.spec import FunctionSpec, from_openai
from lf_export.functions.turns import read_turns

_MAX_PROBLEMS = 20
# Lines of plain text are put together until a sample has this many characters, some 400 tokens.
_TEXT_CHARACTERS = 1600

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Sample:
    """A conversation. `kind` is `call` when functions are shown, whatever the answer; `text` is plain text alone."""

    id: str
    category: str
    kind: Literal["call", "chat", "text"]
    messages: tuple[Mapping[str, Any], ...] = field(hash=False, default=())
    functions: tuple[FunctionSpec, ...] = ()
    text: str = ""


def load_samples(path: Path) -> list[Sample]:
    """The samples of a file: `.jsonl` or `.parquet` rows with `messages` or `input` and `output`, `.txt` plain text.

    Raises:
        InputError: every line that is empty, not UTF-8, not JSON or no conversation; a file without a sample.
        MissingError: no such file, or a parquet file without pyarrow.
    """
    if path.suffix == ".txt":
        return _text_samples(path)
    samples: list[Sample] = []
    seen: dict[str, int] = {}

    def keep(line: int, row: Row) -> None:
        sample = _sample(row, f"{path.stem}:{line}")
        if sample.id in seen:
            raise InputError(f"the id {sample.id!r} is line {seen[sample.id]}'s already")
        seen[sample.id] = line
        samples.append(sample)

    for_each_row(path, keep)
    return samples


def for_each_row(path: Path, take: Callable[[int, Row], None]) -> None:
    """Call `take(line, row)` for every row of a `.jsonl` or `.parquet` file and gather what it refuses.

    Raises:
        InputError: what `take` raised and what does not read, each with `file:line:`; at most 20 are told.
        MissingError: no such file, or a parquet file without pyarrow.
    """
    problems_of_rows(str(path), _rows(path), take)


def problems_of_rows(path: str, rows: Iterable[tuple[int, Row | InputError]], take: Callable[[int, Row], None]) -> None:
    """Call `take(line, row)` for every row of `path` and gather what it refuses.

    Raises:
        InputError: as `for_each_row`.
    """
    problems: list[str] = []
    count = 0
    for line, row in rows:
        count += 1
        try:
            if isinstance(row, InputError):
                raise row
            take(line, row)
        except InputError as error:
            problems += [f"{path}:{line}: {problem}" for problem in error.message.splitlines()]
    if not count:
        problems.append(f"{path}:1: the file is empty, expected a conversation a line")
    if len(problems) > _MAX_PROBLEMS:
        problems = [*problems[:_MAX_PROBLEMS], f"{path}: and {len(problems) - _MAX_PROBLEMS} more mistakes"]
    if problems:
        raise InputError.of(problems)


def _rows(path: Path) -> Iterator[tuple[int, Row | InputError]]:
    if path.suffix == ".jsonl":
        data = _read(path)
        for line, part in enumerate(data.split(b"\n") if data.strip() else (), 1):
            yield line, _parse_line(part)
    elif path.suffix == ".parquet":
        yield from enumerate(_parquet_rows(path), 1)
    else:
        raise InputError(f"{path}: expected a file that ends with .jsonl, .parquet or .txt")


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise MissingError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return data.removesuffix(b"\n")


def _parse_line(data: bytes) -> Row | InputError:
    if not data.strip():
        return InputError("the line is empty, expected a JSON object")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        return InputError(f"not UTF-8 at byte {error.start + 1}")
    try:
        value = loads(text)
    except json.JSONDecodeError as error:
        return InputError(f"not JSON at column {error.colno}: {error.msg}")
    except ValueError as error:
        return InputError(f"not JSON: {error}")
    if not isinstance(value, dict):
        return InputError(f"expected a JSON object, found {type(value).__name__}")
    return value


def _parquet_rows(path: Path) -> Iterator[Row | InputError]:
    try:
        parquet = import_module("pyarrow.parquet")
        arrow_error = import_module("pyarrow.lib").ArrowException
    except ImportError as error:
        raise MissingError(f"{path}: reading parquet needs pyarrow", "pip install pyarrow") from error
    if not path.exists():
        raise MissingError(f"{path}: no such file")
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=512):
                yield from (without_nulls(row) for row in batch.to_pylist())
    except (arrow_error, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: does not read as parquet: {reason}") from error


def without_nulls(value: Any) -> Any:
    """A value without its nulls.

    Parquet gives every struct of a column the same keys: those that are null were not there.
    """
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def _sample(row: Row, fallback: str) -> Sample:
    name = row.get("id", fallback)
    if not isinstance(name, str) or not name:
        raise InputError(f"id: expected text, found {name!r}")
    messages, functions = read_conversation(row)
    _check_calls(messages, functions)
    category = row.get("category", "call" if functions else "chat")
    if not isinstance(category, str):
        raise InputError(f"category: expected text, found {category!r}")
    return Sample(name, category, "call" if functions else "chat", tuple(messages), functions)


def read_conversation(row: Row) -> tuple[list[Mapping[str, Any]], tuple[FunctionSpec, ...]]:
    """The messages and functions of a row: in the OpenAI form, or in that of `llama_functions` (`input`, `output`).

    In the OpenAI form either may be JSON text, as in some parquet files.

    Raises:
        InputError: every mistake of the row, a line each.
    """
    if "messages" in row:
        return _openai(row)
    if isinstance(row.get("input"), str) and isinstance(row.get("output"), str):
        read, functions = read_row(row["input"], row["output"])
        return list[Mapping[str, Any]](read), functions
    raise InputError(f"expected 'messages', or 'input' and 'output' as text, found {', '.join(row) or 'nothing'}")


def _openai(row: Row) -> tuple[list[Mapping[str, Any]], tuple[FunctionSpec, ...]]:
    problems: list[str] = []
    messages: Any = []
    functions: tuple[FunctionSpec, ...] = ()
    try:
        messages = _decoded(row["messages"], "messages")
        read_turns(messages)
    except InputError as error:
        problems.append(error.message)
    try:
        functions = from_openai(_decoded(row.get("tools") or [], "tools"))
    except InputError as error:
        problems.append(error.message)
    if problems:
        raise InputError.of(problems)
    return list(messages), functions


def _decoded(value: Any, where: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return loads(value)
    except ValueError as error:
        raise InputError(f"{where}: not JSON: {error}") from error


def _check_calls(messages: Sequence[Mapping[str, Any]], functions: Sequence[FunctionSpec]) -> None:
    """Every call is of a function that is shown, and somebody answers."""
    turns = read_turns(messages)
    if not any(turn.answer is not None and turn.answer.kind != "empty" for turn in turns):
        raise InputError("messages: no assistant message with text or tool_calls, so there is nothing to learn from")
    names = {spec.name for spec in functions}
    problems = [
        f"messages[{position}]: calls {call.name!r}, which is not in tools ({', '.join(sorted(names)) or 'none'})"
        for position, turn in enumerate(turns)
        if turn.answer is not None
        for call in turn.answer.calls
        if call.name not in names
    ]
    if problems:
        raise InputError.of(problems)


def _text_samples(path: Path) -> list[Sample]:
    try:
        text = _read(path).decode("utf-8")
    except UnicodeDecodeError as error:
        at = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{path}:{at}: not UTF-8") from error
    samples: list[Sample] = []
    gathered: list[str] = []

    def close() -> None:
        if passage := "\n".join(gathered).strip():
            samples.append(Sample(f"{path.stem}:{len(samples) + 1}", "text", "text", text=passage))
        gathered.clear()

    for line in text.splitlines():
        gathered.append(line)
        if sum(map(len, gathered)) >= _TEXT_CHARACTERS:
            close()
    close()
    if not samples:
        raise InputError(f"{path}:1: the file is empty, expected text")
    return samples
