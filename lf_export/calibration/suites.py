"""Evaluation suites: items with their reference answers, from files, from BFCL's data and from the Hugging Face hub."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lf_export.calibration.bfcl import BfclRow, read_bfcl
from lf_export.calibration.hub import hub_rows
from lf_export.calibration.samples import Row, for_each_row, problems_of_rows, read_conversation
from lf_export.calibration.strata import stratified
from lf_export.errors import InputError
from lf_export.functions.answers import Answer, answer_of, calling, dumps
from lf_export.functions.models import arguments_model
from lf_export.functions.possible import PossibleCall
from lf_export.functions.spec import FunctionSpec, to_openai
from lf_export.functions.validate import validate
from lf_export.provenance import digest_of, sha256_file
from lf_export.shipped import shipped

__all__ = ["NO_CALL_TEXT", "EvalItem", "Suite", "functions_of", "load_suite", "read_suite", "stratified"]

BFCL, HUB = "bfcl:", "hf:"

NO_CALL_TEXT = "None of the available functions can do this."
"""The reference answer of an item that expects no call and has no words of its own."""


@dataclass(frozen=True)
class EvalItem:
    """A request and its reference answer; `expected` is a call, or prose where none should be made.

    Attributes:
        id: its name, unique in a run.
        category: what a stratified part keeps the proportions of.
        block: items of one block show the same functions in the same order, so that a runtime can share their prefill.
        messages: the conversation up to the answer.
        functions: the functions that are shown.
        expected: the reference answer.
        possible: the expected calls with all values that are right, where there are several; they then judge.
        ordered: whether the calls must come in order.
        variant: how the item was made from another one (`masked`, `distractors:8`), "" for one of the suite itself.
    """

    id: str
    category: str
    block: str
    messages: tuple[Mapping[str, Any], ...] = field(hash=False)
    functions: tuple[FunctionSpec, ...]
    expected: Answer
    possible: tuple[PossibleCall, ...] = ()
    ordered: bool = False
    variant: str = ""


@dataclass(frozen=True)
class Suite:
    """The items of a suite, and the sha256 of what they were read from."""

    items: tuple[EvalItem, ...]
    sha256: str


def load_suite(source: str | Path) -> list[EvalItem]:
    """The items of a suite; see `read_suite`."""
    return list(read_suite(source).items)


def read_suite(source: str | Path) -> Suite:
    """A suite and the digest of what it was read from.

    Args:
        source: a `.jsonl` or `.parquet` file; the name of a suite that ships, such as `calls`; `bfcl:PATH`, the
            leaderboard's wheel or a folder of its data; `hf:NAME[:SPLIT]`, a dataset of the Hugging Face hub.

    A row of a file or dataset holds OpenAI messages with `tools` and ends with the reference answer, or has the calls
    in `expected` (a list of `{name, arguments}`, empty where none should be made); or it is a `llama_functions` row
    (`input`, `output`). `id`, `category` and `block` may be given; `ordered: true` says that the order of calls
    matters.

    Raises:
        InputError: every row that is no conversation, does not end with an answer, or whose reference call is not
            valid by its own functions.
        MissingError: no such file, or no `datasets` package or hub.
    """
    text = str(source)
    if text.startswith(BFCL):
        rows, digest = read_bfcl(Path(text.removeprefix(BFCL)))
        return Suite(tuple(_from_bfcl(row) for row in rows), digest)
    items: dict[str, EvalItem] = {}

    def keep(line: int, row: Row) -> None:
        item = _item(row, f"{name}:{line}")
        if item.id in items:
            raise InputError(f"a second item with the id {item.id!r}")
        items[item.id] = item

    if text.startswith(HUB):
        name = text.removeprefix(HUB)
        hashed = hashlib.sha256()

        def hash_and_keep(line: int, row: Row) -> None:
            hashed.update(dumps(row).encode())
            keep(line, row)

        problems_of_rows(text, enumerate(hub_rows(name), 1), hash_and_keep)
        return Suite(tuple(items.values()), hashed.hexdigest())
    path = Path(source)
    if not path.suffix:
        path = shipped("calibration", f"suites/{source}.jsonl")
    name = path.stem
    for_each_row(path, keep)
    return Suite(tuple(items.values()), sha256_file(path))


def functions_of(items: Iterable[EvalItem]) -> dict[str, FunctionSpec]:
    """The distinct functions that items show, by name."""
    return {spec.name: spec for item in items for spec in item.functions}


def _from_bfcl(row: BfclRow) -> EvalItem:
    expected = calling(*(call.reference() for call in row.possible)) if row.possible else _abstention()
    shown = _block_of(row.functions)
    return EvalItem(row.id, row.category, shown, row.messages, row.functions, expected, row.possible)


def _abstention() -> Answer:
    return Answer("prose", (), NO_CALL_TEXT)


def _block_of(functions: Sequence[FunctionSpec]) -> str:
    return digest_of([to_openai(spec) for spec in functions])[:16]


def _item(row: Row, fallback: str) -> EvalItem:
    messages, functions, expected = _conversation(row)
    for spec in functions:
        arguments_model(spec)  # a schema that makes none is this row's mistake, not the run's later
    problems = [
        f"messages[{len(messages)}]: {call.name}: {error.message}"
        for call in expected.calls
        for error in validate(call, functions)
    ]
    if problems:
        raise InputError.of(problems)
    ordered = row.get("ordered", False)
    if not isinstance(ordered, bool):
        raise InputError(f"ordered: expected true or false, found {ordered!r}")
    return EvalItem(
        id=_text(row, "id", fallback),
        category=_text(row, "category", ""),
        block=_text(row, "block", _block_of(functions)),
        messages=tuple(messages),
        functions=functions,
        expected=expected,
        ordered=ordered,
    )


def _conversation(row: Row) -> tuple[Sequence[Mapping[str, Any]], tuple[FunctionSpec, ...], Answer]:
    """What is asked, the functions, and the reference answer."""
    messages, functions = read_conversation(row)
    if "expected" in row:
        if messages[-1]["role"] == "assistant":
            raise InputError("messages: ends with an answer, and 'expected' gives another: expected one of them")
        return messages, functions, _expected(row["expected"])
    if messages[-1]["role"] != "assistant" or len(messages) < 2:
        raise InputError("messages: expected the reference answer, an assistant message, as the last of several")
    expected = answer_of(messages[-1], f"messages[{len(messages) - 1}]")
    if expected.kind == "empty":
        raise InputError("messages: the reference answer is empty")
    return messages[:-1], functions, expected


def _expected(value: Any) -> Answer:
    if not isinstance(value, list):
        raise InputError(f"expected: expected a list of calls, found {type(value).__name__}")
    if not value:
        return _abstention()
    calls = [call if isinstance(call, Mapping) and "function" in call else {"function": call} for call in value]
    return answer_of({"tool_calls": calls}, "expected")


def _text(row: Row, name: str, default: str) -> str:
    value = row.get(name, default)
    if not isinstance(value, str):
        raise InputError(f"{name}: expected text, found {value!r}")
    return value
