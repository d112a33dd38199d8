"""Examples to choose from: items of the shipped suites."""

import json
from dataclasses import dataclass

from lf_export.calibration.suites import load_suite, stratified
from lf_export.functions.spec import to_openai

_PARTS = {"calls": 30, "no-call": 12, "chat": 4}
_LABEL = 72


@dataclass(frozen=True)
class Example:
    """A request to start from: its label in the list, its functions as JSON, its message, its reference answer."""

    label: str
    functions: str
    message: str
    reference: str


def shipped_examples() -> list[Example]:
    """A stratified part of each shipped suite, the same each time: items of a single message."""
    found: dict[str, Example] = {}
    for suite, count in _PARTS.items():
        single = [item for item in load_suite(suite) if [each["role"] for each in item.messages] == ["user"]]
        for item in stratified(single, count, seed=0):
            message = str(item.messages[0]["content"])
            short = message if len(message) <= _LABEL else f"{message[:_LABEL].rstrip()}…"
            label = f"{item.category.replace('_', ' ')}: {short}"
            tools = [to_openai(spec) for spec in item.functions]
            functions = json.dumps(tools, indent=2, ensure_ascii=False) if tools else ""
            found[label] = Example(label, functions, message, item.expected.text)
    return list(found.values())
