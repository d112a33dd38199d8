"""The arms beside the raw answers in a report: what each gains, and what it hides; no part of the verdict."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from lf_export.functions.answers import Kind
from lf_export.report import cells
from lf_export.report.parts import Count, Measured, Part, Share

if TYPE_CHECKING:
    from lf_export.report.model import ArtifactReport, Report

EndpointName = Literal["strict_call", "abstention"]


class ArmChange(Part):
    """One endpoint in an arm, against the same artifact's raw answers and against the baseline's in the same arm."""

    endpoint: EndpointName
    n: Count
    right: Count
    gained: Count = Field(description="Items that are right in the arm and not raw.")
    lost: Count = Field(description="Items that are right raw and not in the arm.")
    change: Measured = Field(description="The arm's rate less the raw one.")
    lower: Measured = Field(description="Lower end of its 95 % Tango interval.")
    upper: Measured = Field(description="Upper end of that interval.")
    loss: Measured = Field(None, description="The baseline's rate less the artifact's, both in this arm.")
    loss_lower: Measured = Field(None, description="Lower end of its 95 % Tango interval.")
    loss_upper: Measured = Field(None, description="Upper end of that interval.")
    raw_loss: Measured = Field(None, description="The same loss of the raw answers, which the gate judges.")
    raw_lost: Count | None = Field(None, description="Items that the baseline has right and the artifact not, raw.")
    hidden: Count | None = Field(None, description="Those of them that are right in the arm: damage it does not show.")


class RouterAccuracy(Part):
    """How often a router says rightly whether a call is wanted; intervals are Wilson's, 95 %."""

    trained: Count = Field(description="Calibration conversations that it learnt from.")
    held_out: Count = Field(description="Calibration conversations that it did not see.")
    held_out_right: Count
    held_out_lower: Share
    held_out_upper: Share
    items: Count = Field(description="Items of the suites that show functions.")
    items_right: Count
    items_lower: Share
    items_upper: Share


class ArmItem(Part):
    """An item whose answer in an arm is not the raw one."""

    suite: Literal["calls", "no_call"]
    id: str
    kind: Kind
    correct: bool
    answer: str


class ArmResult(Part):
    """One artifact in one arm."""

    arm: Literal["constrained", "routed"]
    missing: str = Field("", description="Why there is nothing: not available in the runtime, or what broke.")
    engine: str = Field("", description="What held answers to the grammar.")
    asked: Count = Field(0, description="Answers that were written again; the others are the raw ones.")
    changes: list[ArmChange] = Field(default_factory=list)
    unknown_functions: Count | None = Field(None, description="Answers with a call of a function that is not shown.")
    malformed: Count | None = Field(None, description="Attempts at a call that cannot be read.")
    raw_unknown_functions: Count | None = Field(None, description="The same of the raw answers.")
    raw_malformed: Count | None = None
    router: RouterAccuracy | None = Field(None, description="For `routed`.")
    items: list[ArmItem] = Field(default_factory=list, description="Items whose answer is not the raw one.")


NOTE = (
    "Not part of the verdict. Gains and losses: items that are right in the arm and not raw, and the other way round; "
    "the change is the arm's rate less the raw one. Hides: of the items that the artifact lost raw against the "
    "baseline those that are right in the arm. Lost to the baseline: both in the same arm."
)
_CALLED = {"strict_call": "exact calls", "abstention": "abstention"}


def arm_table(report: "Report") -> tuple[tuple[str, ...], list[list[str]]]:
    """Head and rows by artifact, arm and endpoint; no rows where no arm was asked for."""
    head = (
        "artifact", "arm", "of", "right", "gains", "losses", "change (95 %)", "lost to the baseline (95 %)", "hides",
        "unknown functions", "malformed",
    )  # fmt: skip
    rows: list[list[str]] = []
    for artifact in report.everyone:
        found = _raw_rows(artifact) if artifact.arms else []
        for arm in artifact.arms:
            if arm.missing:
                found.append([arm.arm, "not available", *[cells.NOTHING] * 8])
            counts = (_count(arm.unknown_functions), _count(arm.malformed))
            found += [
                ["" if place else arm.arm, *_change_cells(change), *(counts if not place else ("", ""))]
                for place, change in enumerate(arm.changes)
            ]
        rows += [["" if place else artifact.name, *row] for place, row in enumerate(found)]
    return head, rows


def arm_lines(report: "Report") -> list[str]:
    """What the table does not say: how good each router is, and why an arm is not available."""
    lines = []
    for artifact in report.everyone:
        for arm in artifact.arms:
            if arm.missing:
                lines.append(f"{artifact.name}, {arm.arm}: not available: {arm.missing}")
            if arm.router is not None:
                lines.append(f"{artifact.name}, {arm.arm}: {_router_text(arm.router)}")
    return lines


def arms_markdown(report: "Report") -> list[str]:
    """The section of the Markdown report."""
    head, rows = arm_table(report)
    if not rows:
        return []
    listed = "\n".join(f"- {line}" for line in arm_lines(report))
    return ["## Arms", NOTE, cells.markdown_table(head, rows), *([listed] if listed else [])]


def _raw_rows(artifact: "ArtifactReport") -> list[list[str]]:
    """The raw answers, for comparison; empty where no arm was measured, as the counts come with the arms."""
    measured = next((arm for arm in artifact.arms if arm.changes), None)
    if measured is None:
        return []
    counts = (_count(measured.raw_unknown_functions), _count(measured.raw_malformed))
    return [
        [
            "" if place else "raw",
            _CALLED[change.endpoint],
            cells.rate(change.right - change.gained + change.lost, change.n),
            *[cells.NOTHING] * 3,
            cells.points(change.raw_loss),
            cells.NOTHING,
            *(counts if not place else ("", "")),
        ]
        for place, change in enumerate(measured.changes)
    ]


def _change_cells(change: ArmChange) -> list[str]:
    return [
        _CALLED[change.endpoint],
        cells.rate(change.right, change.n),
        str(change.gained),
        str(change.lost),
        _interval(change.change, change.lower, change.upper),
        _interval(change.loss, change.loss_lower, change.loss_upper),
        cells.NOTHING if change.hidden is None else f"{change.hidden} of {change.raw_lost}",
    ]


def _interval(share: float | None, lower: float | None, upper: float | None) -> str:
    """A difference of shares in percentage points, with its interval."""
    if share is None or lower is None or upper is None:
        return cells.NOTHING
    return f"{cells.points(share)} ({100 * lower:.1f} to {100 * upper:.1f})"


def _router_text(router: RouterAccuracy) -> str:
    held = cells.percents(router.held_out_lower, router.held_out_upper)
    items = cells.percents(router.items_lower, router.items_upper)
    return (
        f"the router, trained on {router.trained} calibration conversations, is right on {router.held_out_right} of "
        f"{router.held_out} held out ({held}) and on {router.items_right} of {router.items} items ({items})"
    )


def _count(value: int | None) -> str:
    return cells.NOTHING if value is None else str(value)
