"""How large a function's schema may be, so that whatever walks it ends soon.

A schema comes from a file of somebody else's. References to itself are cut where values end; what is left is its size.
"""

from collections.abc import Mapping
from typing import Any

MAX_DEPTH = 64
"""Levels of nesting, in schemas and in the values that are checked."""

MAX_NODES = 20_000
"""Objects, lists and values in one function's schema."""

MAX_STEPS = 20_000
"""Schemas that are looked at to check one call; references can make more of them than the schema has nodes."""


def size_problem(schema: Any) -> str | None:
    """What is too large about a schema, in words; None where nothing is."""
    waiting: list[tuple[Any, int]] = [(schema, 1)]
    seen = 0
    while waiting:
        node, depth = waiting.pop()
        seen += 1
        if depth > MAX_DEPTH * 2:  # a level of nesting is two here: `properties` and the property
            return f"is nested more than {MAX_DEPTH} levels deep"
        if seen > MAX_NODES:
            return f"has more than {MAX_NODES} parts"
        if isinstance(node, Mapping):
            waiting += [(child, depth + 1) for child in node.values()]
        elif isinstance(node, list | tuple):
            waiting += [(child, depth + 1) for child in node]
    return None
