"""Which kinds of item an item is: what a report shows scores by, beside the categories that a suite gives."""

from collections.abc import Mapping
from typing import Any

from lf_export.calibration.suites import EvalItem

_SHOWN = ((1, "1 function"), (4, "2 to 4 functions"), (9, "5 to 9 functions"))
_MORE = "10 functions or more"

SLICES = (
    "single", "one of several", "parallel", "nested", "no call", "multi-turn", "no function",
    *(name for _, name in _SHOWN), _MORE,
)  # fmt: skip
"""Their names, in the order of a report."""


def slices_of(item: EvalItem) -> tuple[str, ...]:
    """The slices that an item is in.

    By shape: `single` (one call, one function shown), `one of several` (one call, several functions), `parallel`
    (several calls), `no call`. Beside it: `nested` (an expected argument holds an object, or a list of objects or
    lists), `multi-turn` (there was an answer before), and how many functions are shown.
    """
    calls = item.expected.calls
    shown = len(item.functions)
    names = ["no call" if not calls else "parallel" if len(calls) > 1 else "single" if shown < 2 else "one of several"]
    if any(_is_nested(value) for call in calls for value in call.arguments.values()):
        names.append("nested")
    if any(message.get("role") in {"assistant", "tool"} for message in item.messages):
        names.append("multi-turn")
    names.append(next((name for most, name in _SHOWN if shown <= most), _MORE) if shown else "no function")
    return tuple(name for name in SLICES if name in names)


def _is_nested(value: Any) -> bool:
    if isinstance(value, list):
        return any(isinstance(each, Mapping | list) for each in value)
    return isinstance(value, Mapping)
