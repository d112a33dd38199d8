"""Two bench runs beside each other, item by item: did the later one get worse?"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lf_export.errors import InputError
from lf_export.metrics.gate import GateVerdict, Verdict, exit_status, judge_artifact, overall
from lf_export.report import cells
from lf_export.report.model import ArtifactReport, ItemResult, Report
from lf_export.stats import paired

_Key = tuple[str, str]  # suite and id


@dataclass(frozen=True)
class Flip:
    """An item that was right in one run and wrong in the other."""

    suite: str
    id: str
    category: str
    errors: tuple[str, ...]
    before: str | None
    after: str | None


@dataclass(frozen=True)
class PairComparison:
    """One artifact of the earlier run and one of the later, on the items that both answered."""

    before: str
    after: str
    items: int
    gate: GateVerdict
    lost: tuple[Flip, ...]
    gained: tuple[Flip, ...]


@dataclass(frozen=True)
class RunComparison:
    """All pairs, and one verdict over them."""

    verdict: Verdict
    pairs: tuple[PairComparison, ...]
    notes: tuple[str, ...]

    @property
    def status(self) -> int:
        """The exit status: 0 PASS, 10 FAIL, 11 INCONCLUSIVE."""
        return exit_status(self.verdict)

    def facts(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return asdict(self)

    def text(self) -> str:
        """A table, then every flipped item, then the verdict."""
        head = ("earlier", "later", "endpoint", "verdict", "items", "lost", "gained", "loss", "at most")
        rows = [
            [pair.before, pair.after, each.name, each.verdict, str(each.n), str(each.lost), str(each.gained),
             cells.points(each.loss if each.n else None), cells.points(each.upper)]
            for pair in self.pairs
            for each in pair.gate.endpoints
        ]  # fmt: skip
        lines = [cells.plain_table(head, rows), ""]
        for pair in self.pairs:
            for word, flips in (("lost", pair.lost), ("gained", pair.gained)):
                lines += [
                    f"{pair.after}: {word} {flip.id} ({flip.category})"
                    + (f": {', '.join(flip.errors)}" if flip.errors else "")
                    for flip in flips
                ]
        return "\n".join([*lines, *self.notes, f"verdict: {self.verdict}"])


def compare_reports(
    before: Report, after: Report, *, pairs: Mapping[str, str] | None = None, margin: float = 0.05, alpha: float = 0.05
) -> RunComparison:
    """Judge each artifact of `after` against its namesake in `before`, as the gate judges against the merged model.

    Args:
        before: the earlier run.
        after: the later run, on the same suites.
        pairs: earlier name → later name; None: all names that both have, the merged model included.
        margin: the largest loss that is accepted, as a share of items.
        alpha: one-sided error rate.

    Raises:
        InputError: the suites differ, a name is not there, or no item was answered in both.
    """
    _same_suites(before, after)
    old, new = (_by_name(report) for report in (before, after))
    if pairs is None:
        pairs = {name: name for name in old if name in new}
    problems = [f"the earlier report has no {name!r}, it has {', '.join(old)}" for name in pairs if name not in old]
    problems += [
        f"the later report has no {name!r}, it has {', '.join(new)}" for name in pairs.values() if name not in new
    ]
    if problems or not pairs:
        raise InputError.of(problems or ["the two reports have no artifact's name in common"], "--pair EARLIER=LATER")
    compared = [_pair(old[one], new[other], margin, alpha) for one, other in pairs.items()]
    notes = _notes(before, after)
    answered = max(len(_items(old[one])) for one in pairs)
    notes += [
        f"{pair.after}: {pair.items} of {answered} items are in both" for pair in compared if pair.items < answered
    ]
    return RunComparison(overall([pair.gate.verdict for pair in compared]), tuple(compared), tuple(notes))


def _by_name(report: Report) -> dict[str, ArtifactReport]:
    return {artifact.name: artifact for artifact in (report.baseline, *report.artifacts)}


def _same_suites(before: Report, after: Report) -> None:
    problems = []
    for name in ("calls", "no_call"):
        one, other = getattr(before.suites, name), getattr(after.suites, name)
        if (one and one.sha256) != (other and other.sha256):
            shown = " and ".join(f"{each.path} ({each.sha256[:12]})" if each else "none" for each in (one, other))
            problems.append(f"the suites {name} differ: {shown}")
    if before.dialect != after.dialect:
        problems.append(f"the dialects differ: {before.dialect} and {after.dialect}")
    if problems:
        raise InputError.of(problems, "only runs on the same items can be compared")


def _notes(before: Report, after: Report) -> list[str]:
    notes = []
    if before.max_new_tokens != after.max_new_tokens:
        notes.append(f"answers were cut at {before.max_new_tokens} tokens before, at {after.max_new_tokens} after")
    changed = [
        f"{name} {before.versions.get(name, '–')} to {after.versions.get(name, '–')}"  # noqa: RUF001 - a dash
        for name in sorted({*before.versions, *after.versions})
        if before.versions.get(name) != after.versions.get(name)
    ]
    return [*notes, *([f"versions changed: {', '.join(changed)}"] if changed else [])]


def _pair(before: ArtifactReport, after: ArtifactReport, margin: float, alpha: float) -> PairComparison:
    old, new = _items(before), _items(after)
    both = [key for key in old if key in new]
    if not both:
        raise InputError(f"{before.name} and {after.name}: no item was answered in both runs")
    counts = [
        paired(*([items[key].correct for key in both if key[0] == suite] for items in (old, new)))
        for suite in ("calls", "no_call")
    ]
    problems = after.gate.problems if after.gate else ()
    gate = judge_artifact(*counts, margin=margin, alpha=alpha, problems=problems)
    return PairComparison(before.name, after.name, len(both), gate, *_flips(both, old, new))


def _items(artifact: ArtifactReport) -> dict[_Key, ItemResult]:
    return {(item.suite, item.id): item for item in artifact.own_items}


def _flips(
    both: Sequence[_Key], old: Mapping[_Key, ItemResult], new: Mapping[_Key, ItemResult]
) -> tuple[tuple[Flip, ...], tuple[Flip, ...]]:
    """Lost and gained items; the errors are those of the wrong answer."""

    def flip(key: _Key, wrong: ItemResult) -> Flip:
        errors = tuple(wrong.errors) or (wrong.kind,)
        return Flip(*key, wrong.category, errors, old[key].answer, new[key].answer)

    lost = tuple(flip(key, new[key]) for key in both if old[key].correct and not new[key].correct)
    gained = tuple(flip(key, old[key]) for key in both if new[key].correct and not old[key].correct)
    return lost, gained
