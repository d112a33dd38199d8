"""The item browser: every item that an artifact lost or gained, with what it asked and both answers."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from lf_export.report.evidence import ItemText, Turn
from lf_export.report.html.differences import Piece, compared, laid_out
from lf_export.report.model import ArtifactReport, ItemResult, Report

_SNIPPET = 110
# Bytes of HTML around the texts of an item and of a flip, and by how much marks and escapes lengthen a text.
_ITEM_FRAME, _FLIP_FRAME, _MARKUP = 1_500, 1_200, 1.5

Key = tuple[Literal["calls", "no_call"], str]

# An artifact's name, the baseline's outcome, its own.
Change = tuple[str, ItemResult, ItemResult]


@dataclass(frozen=True)
class Flip:
    """One item in one artifact: what changed, and both answers in pieces."""

    artifact: str
    lost: bool
    errors: tuple[str, ...]
    before: list[Piece]
    after: list[Piece]
    before_kind: str
    after_kind: str
    kl: float | None

    @property
    def direction(self) -> str:
        """`lost` or `gained`."""
        return "lost" if self.lost else "gained"


@dataclass(frozen=True)
class Item:
    """An item that flipped somewhere; without texts where the report holds none."""

    suite: str
    id: str
    category: str
    snippet: str
    prompt: Sequence[Turn]
    functions: Sequence[tuple[str, str]]
    expected: str
    flips: list[Flip] = field(default_factory=list)

    @property
    def size(self) -> int:
        """About how many bytes of HTML it takes."""
        texts = sum(len(turn.text) for turn in self.prompt) + sum(len(text) for _, text in self.functions)
        answers = sum(len(piece.text) + 30 for flip in self.flips for piece in (*flip.before, *flip.after))
        return int(_ITEM_FRAME + _FLIP_FRAME * len(self.flips) + _MARKUP * (texts + answers + len(self.expected)))


@dataclass(frozen=True)
class Browser:
    """The items that are shown, what they can be chosen by, and how many did not fit."""

    items: list[Item]
    left_out: int
    artifacts: list[str]
    suites: list[str]
    categories: list[str]
    errors: list[str]

    @property
    def flips(self) -> int:
        """How many flips are shown."""
        return sum(len(item.flips) for item in self.items)


def browser(report: Report, room: int) -> Browser:
    """Every flipped item, those that most artifacts lost first, as many as fit into `room` bytes."""
    flipped = _flipped(report)
    texts = {(text.suite, text.id): text for text in report.texts.items}
    shown: list[Item] = []
    # The answers are compared one item after the other: of a very long report, only those that are shown.
    for key in sorted(flipped, key=lambda key: (-sum(before.correct for _, before, _ in flipped[key]), key[1])):
        item = _item(flipped[key], texts.get(key), report.texts.functions)
        room -= item.size
        if room < 0:
            break
        shown.append(item)
    flips = [flip for item in shown for flip in item.flips]
    return Browser(
        items=shown,
        left_out=len(flipped) - len(shown),
        artifacts=[each.name for each in report.artifacts if each.name in {flip.artifact for flip in flips}],
        suites=sorted({item.suite for item in shown}),
        categories=sorted({item.category for item in shown}),
        errors=[kind for kind, _ in Counter(kind for flip in flips for kind in flip.errors).most_common()],
    )  # fmt: skip


def error_counts(artifact: ArtifactReport) -> dict[str, Counter[str]]:
    """Items by kind of error and by category, both suites together; an item with two kinds counts under both."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for item in artifact.own_items:
        for kind in item.errors:
            found[kind][item.category] += 1
    return found


def _flipped(report: Report) -> dict[Key, list[Change]]:
    base = {(item.suite, item.id): item for item in report.baseline.own_items}
    found: dict[Key, list[Change]] = defaultdict(list)
    for artifact in report.artifacts:
        for item in artifact.own_items:
            before = base.get((item.suite, item.id))
            if before is not None and before.correct != item.correct:
                found[item.suite, item.id].append((artifact.name, before, item))
    return found


def _flip(artifact: str, before: ItemResult, after: ItemResult) -> Flip:
    wrong = after if before.correct else before
    left, right = compared(laid_out(before.answer or ""), laid_out(after.answer or ""))
    return Flip(
        artifact=artifact,
        lost=before.correct,
        errors=tuple(wrong.errors) or (wrong.kind,),
        before=left,
        after=right,
        before_kind=_kind(before),
        after_kind=_kind(after),
        kl=after.kl_mean,
    )


def _kind(item: ItemResult) -> str:
    return item.kind + (", loops" if item.loops else ", cut off" if item.cut else "")


def _item(changes: Sequence[Change], text: ItemText | None, functions: dict[str, str]) -> Item:
    result = changes[0][1]
    flips = [_flip(*change) for change in changes]
    if text is None:
        return Item(result.suite, result.id, result.category, "", (), (), "", flips)
    asked = [turn.text for turn in text.prompt if turn.role == "user"]
    snippet = " ".join((asked or [""])[-1].split())
    calls = "\n".join(json.dumps(call, ensure_ascii=False) for call in text.expected_calls)
    return Item(
        suite=result.suite,
        id=result.id,
        category=result.category,
        snippet=snippet if len(snippet) <= _SNIPPET else f"{snippet[:_SNIPPET]}…",
        prompt=text.prompt,
        functions=[_function(functions.get(key, "")) for key in text.functions],
        expected=calls or text.expected_text or "",
        flips=flips,
    )


def _function(text: str) -> tuple[str, str]:
    """A function's name and its JSON, which may have been cut."""
    try:
        return str(json.loads(text)["name"]), text
    except (ValueError, KeyError, TypeError):
        return text[:60].replace("\n", " "), text
