"""The tables of right and wrong answers on the report's page."""

from collections.abc import Mapping

from lf_export.report import cells
from lf_export.report.model import ArtifactReport, CallMetrics, Report, VariantMetrics

_NO_CALL = "no call"


def calls_and_abstention(report: Report) -> list[str]:
    """Both scores, arguments and schema validity, and what was answered where no call is expected."""
    if not any(artifact.calls or artifact.no_call for artifact in report.everyone):
        return []
    head = (
        "artifact", "items", "exact calls", "BFCL", "right names", "right arguments", "95 %", "schema-valid",
        "no-call items", "abstained", "BFCL", "called",
    )  # fmt: skip
    rows = []
    for artifact in report.everyone:
        calls, no_call = artifact.calls, artifact.no_call
        row = [artifact.name]
        if calls:
            row += [
                str(calls.n),
                *(cells.rate(x, calls.n) for x in (calls.strict_exact, calls.bfcl_like, calls.name_ok)),
                *_argument_cells(calls),
                cells.rate(calls.schema_valid, calls.n),
            ]
        else:
            row += [cells.NOTHING] * 7
        if no_call:
            counts = (no_call.abstained, no_call.bfcl_like, no_call.called, no_call.malformed, no_call.empty)
            row += [str(no_call.n), *(cells.rate(x, no_call.n) for x in counts)]
        else:
            row += [cells.NOTHING] * 6
        rows.append(row)
    note = (
        "*Exact* and *abstained* are strict and decide; *BFCL* is what the leaderboard's rules say of them. "
        "*Schema-valid*: a strict Pydantic model of the function takes every call."
    )
    return ["## Calls and abstention", cells.markdown_table((*head, "malformed", "empty"), rows), note]


def _argument_cells(calls: CallMetrics) -> list[str]:
    arguments = calls.arguments
    if arguments is None:
        return [cells.NOTHING] * 2
    return [cells.rate(arguments.right, arguments.expected), cells.percents(arguments.lower, arguments.upper)]


def errors(report: Report) -> list[str]:
    """Items by kind of error."""
    kinds = sorted({kind for artifact in report.everyone if artifact.calls for kind in artifact.calls.errors})
    if not kinds:
        return []
    head = ["errors, items", *(artifact.name for artifact in report.everyone)]
    rows = [
        [kind, *(_count(each.calls.errors if each.calls else None, kind) for each in report.everyone)] for kind in kinds
    ]
    invalid = {kind: None for artifact in report.everyone if artifact.calls for kind in artifact.calls.schema_errors}
    rows += [
        [
            f"Pydantic: {kind}",
            *(_count(each.calls.schema_errors if each.calls else None, kind) for each in report.everyone),
        ]
        for kind in sorted(invalid)
    ]
    return ["## Errors by kind", "An item with two kinds of error counts under both.", cells.markdown_table(head, rows)]


def _count(counts: Mapping[str, int] | None, kind: str) -> str:
    return cells.NOTHING if counts is None else str(counts.get(kind, 0))


def categories(report: Report) -> list[str]:
    """Exact calls by the suite's own categories."""
    found = {
        category: None for artifact in report.everyone if artifact.calls for category in artifact.calls.by_category
    }
    if not found:
        return []
    head = ["exact calls", "items", *(artifact.name for artifact in report.everyone)]
    rows = []
    for category in found:
        counts = [artifact.calls.by_category.get(category) if artifact.calls else None for artifact in report.everyone]
        items = max(count.n for count in counts if count)
        rows.append([category, str(items), *(cells.rate(c.strict_exact, c.n) if c else cells.NOTHING for c in counts)])
    return ["## Exact calls by category", cells.markdown_table(head, rows)]


def slices(report: Report) -> list[str]:
    """The table by slice."""
    head, rows = slice_table(report)
    return ["## By slice", cells.markdown_table(head, rows)] if rows else []


def slice_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """Exact calls, and abstentions where no call is expected, by slice: head and rows."""
    head = ["right, strict", "items", *(artifact.name for artifact in report.everyone)]
    found = {name: None for artifact in report.everyone if artifact.calls for name in artifact.calls.by_slice}
    rows = [_slice_row(name, [_calls_slice(artifact, name) for artifact in report.everyone]) for name in found]
    silent = {name: None for artifact in report.everyone if artifact.no_call for name in artifact.no_call.by_slice}
    rows += [
        _slice_row(
            name if name == _NO_CALL else f"{_NO_CALL}, {name}",
            [_no_call_slice(each, name) for each in report.everyone],
        )
        for name in silent
    ]
    return head, rows


def _slice_row(name: str, counts: list[tuple[int, int] | None]) -> list[str]:
    items = max(count[1] for count in counts if count)
    return [name, str(items), *(cells.rate(*count) if count else cells.NOTHING for count in counts)]


def _calls_slice(artifact: ArtifactReport, name: str) -> tuple[int, int] | None:
    found = artifact.calls.by_slice.get(name) if artifact.calls else None
    return (found.strict_exact, found.n) if found else None


def _no_call_slice(artifact: ArtifactReport, name: str) -> tuple[int, int] | None:
    found = artifact.no_call.by_slice.get(name) if artifact.no_call else None
    return (found.abstained, found.n) if found else None


def variants(report: Report) -> list[str]:
    """The suites as they are and changed; a fall from the one to the other is what the change costs a model."""
    head, rows = variant_table(report)
    if not rows:
        return []
    return ["## Variants of the suites", "Not part of the verdict.", cells.markdown_table(head, rows)]


def variant_table(report: Report) -> tuple[tuple[str, ...], list[list[str]]]:
    """Head and rows by artifact and variant; no rows where no variant was asked for."""
    head = ("artifact", "items shown", "exact calls", "BFCL", "right arguments", "95 %", "abstained")
    rows: list[list[str]] = []
    if not any(artifact.variants for artifact in report.everyone):
        return head, rows
    for artifact in report.everyone:
        shown = {"as they are": VariantMetrics(calls=artifact.calls, no_call=artifact.no_call), **artifact.variants}
        for index, (name, each) in enumerate(shown.items()):
            calls, silent = each.calls, each.no_call
            rows.append(
                [
                    artifact.name if not index else "",
                    name,
                    *(
                        [cells.rate(x, calls.n) for x in (calls.strict_exact, calls.bfcl_like)] + _argument_cells(calls)
                        if calls
                        else [cells.NOTHING] * 4
                    ),
                    cells.rate(silent.abstained, silent.n) if silent else cells.NOTHING,
                ]
            )
    return head, rows
