"""What is wrong with calls: each thing with its kind and its place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lf_export.functions.answers import Call
from lf_export.functions.possible import Wanted
from lf_export.functions.spec import FunctionSpec
from lf_export.functions.validate import ErrorKind, joined, validate
from lf_export.functions.values import json_equal


@dataclass(frozen=True)
class CallIssue:
    """One thing that is wrong with an answer.

    Attributes:
        kind: what; `nested` where it is below an argument's top level.
        function: the function that was called, or that was expected and not called; "" for the whole answer.
        path: the place, such as `address.zip` or `tags[2]`; "" for the whole call.
        cause: what is wrong at the place; `kind` itself where that says it.
    """

    kind: ErrorKind
    function: str = ""
    path: str = ""
    cause: ErrorKind | None = None


def is_right(call: Call, wanted: Wanted) -> bool:
    """Whether a call is strictly right."""
    given = call.arguments
    return (
        call.name == wanted.name
        and wanted.needed <= given.keys()
        and all(wanted.allows(name, value) for name, value in given.items())
    )


def nearest(
    calls: Sequence[Call], wanted: Sequence[Wanted], matched: Mapping[int, int], functions: Sequence[FunctionSpec]
) -> dict[int, int]:
    """The other expected calls with the calls that are left: the same function first, then the fewest errors."""
    rest = [at for at in range(len(calls)) if at not in matched.values()]
    pairs: dict[int, int] = {}
    for target in (at for at in range(len(wanted)) if at not in matched):
        if not rest:
            break

        def distance(at: int, each: Wanted = wanted[target]) -> tuple[bool, int, int]:
            kinds = {issue.kind for issue in _between(calls[at], each, functions)}
            return calls[at].name != each.name, len(kinds), at

        pairs[target] = min(rest, key=distance)
        rest.remove(pairs[target])
    return pairs


def issues_of(
    calls: Sequence[Call], wanted: Sequence[Wanted], pairs: Mapping[int, int], functions: Sequence[FunctionSpec]
) -> tuple[CallIssue, ...]:
    """What is wrong, by place, once expected calls and calls are paired (expected → call)."""
    found: list[CallIssue] = []
    for target, at in sorted(pairs.items()):
        if not is_right(calls[at], wanted[target]):
            found += _between(calls[at], wanted[target], functions)
    if len(calls) < len(wanted):
        found += [CallIssue("count", each.name) for target, each in enumerate(wanted) if target not in pairs]
    for at, call in enumerate(calls):
        if at not in pairs.values():
            found.append(CallIssue("count", call.name))
            if all(spec.name != call.name for spec in functions):
                found.append(CallIssue("unknown_function", call.name))
    return tuple(dict.fromkeys(found))


def _between(call: Call, target: Wanted, functions: Sequence[FunctionSpec]) -> list[CallIssue]:
    if call.name != target.name:
        shown = any(spec.name == call.name for spec in functions)
        return [CallIssue("wrong_function" if shown else "unknown_function", call.name)]
    given = call.arguments
    found = [CallIssue("missing_argument", call.name, name) for name in sorted(target.needed - given.keys())]
    by_argument = {error.argument: error for error in reversed(validate(call, functions))}  # the first stays
    for name, value in given.items():
        if name not in target.known:
            found.append(CallIssue("extra_argument", call.name, joined("", name)))
        elif not target.allows(name, value):
            error = by_argument.get(joined("", name))
            if error is not None:
                found.append(CallIssue(error.kind, call.name, error.path, error.cause))
            else:
                found.append(_value_issue(call.name, name, value, target.example(name)))
    return found


def right_arguments(call: Call, target: Wanted) -> int:
    """How many of the needed arguments the call gives rightly."""
    if call.name != target.name:
        return 0
    given = call.arguments
    return sum(name in given and target.allows(name, given[name]) for name in target.needed)


def _value_issue(function: str, name: str, value: Any, want: Any) -> CallIssue:
    cause, path = _difference(value, want, joined("", name))
    inside = isinstance(want, Mapping | list) and _json_type(value) == _json_type(want)
    return CallIssue("nested" if inside else cause, function, path, cause)


def _difference(value: Any, want: Any, path: str) -> tuple[ErrorKind, str]:
    """What differs first, and where."""
    if _json_type(value) != _json_type(want):
        return "wrong_type", path
    if isinstance(want, Mapping):
        for name in want:
            if name not in value:
                return "missing_argument", joined(path, name)
            if not json_equal(value[name], want[name]):
                return _difference(value[name], want[name], joined(path, name))
        return "extra_argument", joined(path, next((name for name in value if name not in want), ""))
    if isinstance(want, list) and len(value) == len(want):
        for at, (one, other) in enumerate(zip(value, want, strict=True)):
            if not json_equal(one, other):
                return _difference(one, other, f"{path}[{at}]")
    return "wrong_value", path


def _json_type(value: Any) -> type:
    if isinstance(value, bool):
        return bool
    kinds: tuple[Any, ...] = (int | float, str, list, Mapping)
    return next((kind for kind in kinds if isinstance(value, kind)), type(value))
