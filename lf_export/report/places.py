"""Messages without the machine's folders: what is published says what happened, and not where."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lf_export.report.model import Report

_ABSOLUTE = re.compile(r"(?<![\w/.:<])(?:/|~/|[A-Za-z]:\\)(?:[^/\\\s:'\"]+[/\\])+([^/\\\s:'\"]*)")


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
