"""Messages without the machine's folders: what is published says what happened, and not where."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lf_export.report.model import ArtifactReport, Report

_ABSOLUTE = re.compile(r"(?<![\w/.:<])(?:/|~/|[A-Za-z]:\\)(?:[^/\\\s:'\"]+[/\\])+([^/\\\s:'\"]*)")


def published(report: Report) -> Report:
    """The report as it is written: artifacts by the names of their folders or files, messages without folders."""
    clean = public(report)

    def part(artifact: ArtifactReport) -> ArtifactReport:
        changes: dict[str, Any] = {"path": Path(artifact.path).name, "notes": [clean(note) for note in artifact.notes]}
        if (gate := artifact.gate) is not None:
            changes["gate"] = gate.model_copy(
                update={
                    "problems": [clean(problem) for problem in gate.problems],
                    "endpoints": [each.model_copy(update={"reason": clean(each.reason)}) for each in gate.endpoints],
                    "limits": [each.model_copy(update={"reason": clean(each.reason)}) for each in gate.limits],
                }
            )
        return artifact.model_copy(update=changes)

    return report.model_copy(
        update={"baseline": part(report.baseline), "artifacts": [part(each) for each in report.artifacts]}
    )


def public(report: Report) -> Callable[[Any], str]:
    """What takes folders out of a message: an artifact's becomes its name, of others the last part is left."""
    places = {
        place: artifact.name
        for artifact in report.everyone
        for place in (artifact.path, str(Path(artifact.path).absolute()) if artifact.path else "")
        if len(place) > 1
    }
    longest_first = sorted(places, key=len, reverse=True)
    known = re.compile(rf"(?<![\w.-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w.-])") if places else None

    def clean(text: Any) -> str:
        shown = str(text) if known is None else known.sub(lambda found: places[found[0]], str(text))
        return _ABSOLUTE.sub(r"…/\1", shown)

    return clean
