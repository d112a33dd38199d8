"""Evaluation suites: items with their reference answers, and a stratified part of them."""

import random
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from lf_export.calibration.samples import Row, for_each_row, read_conversation
from lf_export.errors import InputError
from lf_export.functions.answers import Answer, answer_of
from lf_export.functions.spec import FunctionSpec, to_openai
from lf_export.functions.validate import validate
from lf_export.provenance import digest_of
from lf_export.shipped import shipped


@dataclass(frozen=True)
class EvalItem:
    """A request and its reference answer; `expected` is a call, or prose where none should be made.

    Items of one `block` show the same functions in the same order, so that a runtime can share their prefill.
    """

    id: str
    category: str
    block: str
    messages: tuple[Mapping[str, Any], ...] = field(hash=False)
    functions: tuple[FunctionSpec, ...]
    expected: Answer


class _Grouped(Protocol):
    @property
    def id(self) -> str: ...


Item = TypeVar("Item", bound=_Grouped)


def load_suite(source: str | Path) -> list[EvalItem]:
    """The items of a suite: a `.jsonl` file, or the name of a shipped suite such as `calls`.

    The last message of a row is its reference answer.

    Raises:
        InputError: every row that is no conversation, does not end with an answer, or whose reference call is not
            valid by its own functions.
        MissingError: no such file.
    """
    path = Path(source)
    if not path.suffix:
        path = shipped("calibration", f"suites/{source}.jsonl")
    items: list[EvalItem] = []
    seen: set[str] = set()

    def keep(line: int, row: Row) -> None:
        item = _item(row, f"{path.stem}:{line}")
        if item.id in seen:
            raise InputError(f"a second item with the id {item.id!r}")
        seen.add(item.id)
        items.append(item)

    for_each_row(path, keep)
    return items


def stratified(
    items: Sequence[Item], n: int, *, key: str = "category", group: str = "block", seed: int = 0
) -> list[Item]:
    """`n` of the items, each category with its share of the whole and whole blocks where the counts allow it.

    Args:
        items: what to choose from; the choice keeps their order.
        n: how many; all of them when there are no more.
        key: the attribute whose proportions hold, exactly up to rounding (largest remainders).
        group: the attribute of items that should stay together.
        seed: the same seed gives the same choice.
    """
    if n >= len(items):
        return list(items)
    left = _quotas(Counter(_value(item, key) for item in items), n)
    blocks: dict[Hashable, list[Item]] = defaultdict(list)
    for item in items:
        blocks[_value(item, group)].append(item)
    order = list(blocks.values())
    random.Random(seed).shuffle(order)  # noqa: S311 - a reproducible choice, no secret
    chosen: set[str] = set()
    # whole blocks first, then the rest of the counts from blocks in the same order
    for whole in (True, False):
        for members in order:
            fresh = [item for item in members if item.id not in chosen]
            wanted = Counter(_value(item, key) for item in fresh)
            if whole and any(count > left[kind] for kind, count in wanted.items()):
                continue
            for item in fresh:
                if left[_value(item, key)] > 0:
                    left[_value(item, key)] -= 1
                    chosen.add(item.id)
    return [item for item in items if item.id in chosen]


def _quotas(counts: Mapping[Hashable, int], n: int) -> Counter[Hashable]:
    total = sum(counts.values())
    quotas = Counter({kind: count * n // total for kind, count in counts.items()})
    remainders = sorted(counts, key=lambda kind: (-(counts[kind] * n % total), str(kind)))
    for kind in remainders[: n - quotas.total()]:
        quotas[kind] += 1
    return quotas


def _value(item: Any, name: str) -> Hashable:
    value: Hashable = getattr(item, name)
    return value


def _item(row: Row, fallback: str) -> EvalItem:
    if "messages" not in row:
        raise InputError("expected an object with 'messages'")
    messages, functions = read_conversation(row)
    if messages[-1]["role"] != "assistant" or len(messages) < 2:
        raise InputError("messages: expected the reference answer, an assistant message, as the last of several")
    expected = answer_of(messages[-1], f"messages[{len(messages) - 1}]")
    if expected.kind == "empty":
        raise InputError("messages: the reference answer is empty")
    problems = [
        f"messages[{len(messages) - 1}]: {call.name}: {error.message}"
        for call in expected.calls
        for error in validate(call, functions)
    ]
    if problems:
        raise InputError.of(problems)
    shown = digest_of([to_openai(spec) for spec in functions])[:16]
    return EvalItem(
        id=_text(row, "id", fallback),
        category=_text(row, "category", ""),
        block=_text(row, "block", shown),
        messages=tuple(messages[:-1]),
        functions=functions,
        expected=expected,
    )


def _text(row: Row, name: str, default: str) -> str:
    value = row.get(name, default)
    if not isinstance(value, str):
        raise InputError(f"{name}: expected text, found {value!r}")
    return value


def functions_of(items: Iterable[EvalItem]) -> dict[str, FunctionSpec]:
    """The distinct functions that items show, by name."""
    return {spec.name: spec for item in items for spec in item.functions}
