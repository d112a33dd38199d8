"""The suites of a run: read, cut to a stratified part, checked to hold what they are for."""

from collections.abc import Mapping, Sequence

from lf_export.calibration.suites import BFCL, EvalItem, read_suite, stratified
from lf_export.errors import InputError
from lf_export.report.model import SuiteFacts, Suites
from lf_export.steps.sources import shown_path, suite_source


def load_suites(wanted: Mapping[str, tuple[str, int | None]], seed: int) -> tuple[dict[str, list[EvalItem]], Suites]:
    """The items of each suite, and what the report says of it.

    Args:
        wanted: `calls`, `no_call`, `chat` or some of them → the suite, and how many of its items (None: all).
        seed: of the stratified parts.

    Raises:
        InputError: a suite cannot be read, or an item expects a call where none belongs, or none where one does.
    """
    items: dict[str, list[EvalItem]] = {}
    facts: dict[str, SuiteFacts] = {}
    for name, (given, limit) in wanted.items():
        suite = read_suite(suite_source(given))
        every = _serving(suite.items, name) if given.startswith(BFCL) else suite.items
        items[name] = list(every) if limit is None else stratified(every, limit, seed=seed)
        facts[name] = SuiteFacts(
            path=shown_path(given), items=len(items[name]), of_items=len(every), sha256=suite.sha256
        )
    wrong = [
        f"{wanted[name][0]}: item {item.id} expects {'no call' if calls else 'a call'}"
        for name, calls in (("calls", True), ("no_call", False))
        for item in items.get(name, [])
        if bool(item.expected.calls) != calls
    ]
    if wrong:
        raise InputError.of(wrong[:10], "call items belong in the suite of calls, the others in that without")
    return items, Suites(**facts)


def _serving(items: Sequence[EvalItem], name: str) -> list[EvalItem]:
    """The items of the leaderboard that a suite of that name takes: with calls, or without."""
    return [item for item in items if bool(item.expected.calls) == (name == "calls")]
