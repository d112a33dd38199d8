"""Is an answer the expected calls: the strict score, a lenient one like BFCL's, and what went wrong by kind."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from lf_export.functions.answers import Answer, Call
from lf_export.functions.spec import FunctionSpec
from lf_export.functions.validate import ErrorKind, validate
from lf_export.functions.values import json_equal

_ORDER: tuple[ErrorKind, ...] = get_args(ErrorKind)
# What BFCL's string rule takes out before it compares; "1.5" equals "15" by it, so it is no strict score.
_IGNORED = str.maketrans(dict.fromkeys(" ,./-_*^") | {"'": '"'})


@dataclass(frozen=True)
class CallOutcome:
    """How an answer compares with the expected calls.

    Attributes:
        exact: the same calls in any order, the same argument names, equal JSON values; for an item that expects no
            call, an answer in prose.
        name_ok: the same function names, whatever the arguments.
        errors: the kinds of what is wrong, each once; empty exactly when `exact`.
        bfcl_like: right by rules like those of the Berkeley leaderboard's AST check; see `compare`.
    """

    exact: bool
    name_ok: bool
    errors: tuple[ErrorKind, ...]
    bfcl_like: bool


def compare(answer: Answer, expected: Sequence[Call], functions: Sequence[FunctionSpec]) -> CallOutcome:
    """Compare an answer with the expected calls, or with none.

    The BFCL-like score ignores case, spaces and the punctuation `,./-_*^` in strings, takes a call out of a code fence,
    and lets an argument that equals the schema's `default` be left out or added. Unlike the leaderboard's, it never
    counts an answer that does not read as a correct abstention.
    """
    if not expected:
        return _abstention(answer)
    lenient = _pairs(answer.calls, expected, lambda call, wanted: _bfcl_like(call, wanted, functions)) is not None
    if answer.kind != "call":
        kind: ErrorKind = "malformed" if answer.kind == "malformed" else "not_a_call"
        return CallOutcome(exact=False, name_ok=False, errors=(kind,), bfcl_like=lenient)
    names = sorted(call.name for call in answer.calls) == sorted(call.name for call in expected)
    exact = _pairs(answer.calls, expected, same_call) is not None
    errors = () if exact else _differences(answer.calls, expected, functions)
    return CallOutcome(exact=exact, name_ok=names, errors=errors, bfcl_like=exact or lenient)


def same_call(first: Call, second: Call) -> bool:
    """Strictly the same: name, argument names, and values as JSON."""
    return first.name == second.name and json_equal(first.arguments, second.arguments)


def _abstention(answer: Answer) -> CallOutcome:
    if answer.kind == "prose":
        return CallOutcome(exact=True, name_ok=True, errors=(), bfcl_like=True)
    kinds: dict[str, ErrorKind] = {"call": "unwanted_call", "malformed": "malformed", "empty": "not_a_call"}
    return CallOutcome(exact=False, name_ok=False, errors=(kinds[answer.kind],), bfcl_like=False)


def _pairs(
    calls: Sequence[Call], expected: Sequence[Call], same: Callable[[Call, Call], bool]
) -> list[tuple[Call, Call]] | None:
    """Each call with the expected one that it is, in any order; None unless all are paired.

    Augmenting paths (a maximum matching), as the lenient rule is no equivalence and greed could miss a pairing.
    """
    if len(calls) != len(expected):
        return None
    taken: dict[int, int] = {}  # expected -> call

    def place(call: int, seen: set[int]) -> bool:
        for wanted in range(len(expected)):
            if wanted not in seen and same(calls[call], expected[wanted]):
                seen.add(wanted)
                if wanted not in taken or place(taken[wanted], seen):
                    taken[wanted] = call
                    return True
        return False

    if not all(place(call, set()) for call in range(len(calls))):
        return None
    return [(calls[call], expected[wanted]) for wanted, call in taken.items()]


def _differences(
    calls: Sequence[Call], expected: Sequence[Call], functions: Sequence[FunctionSpec]
) -> tuple[ErrorKind, ...]:
    """The kinds of error, once calls that are right are set aside and the rest is paired as well as it goes."""
    kinds: set[ErrorKind] = set()
    if len(calls) != len(expected):
        kinds.add("count")
    rest = list(calls)
    wanted: list[Call] = []
    for target in expected:
        match = next((call for call in rest if same_call(call, target)), None)
        if match is None:
            wanted.append(target)
        else:
            rest.remove(match)
    for target in wanted:
        if not rest:
            break
        # the same function first, then the fewest kinds of error
        ranked = [
            (call.name != target.name, len(_between(call, target, functions)), at) for at, call in enumerate(rest)
        ]
        kinds |= _between(rest.pop(min(ranked)[2]), target, functions)
    for call in rest:
        kinds |= {error.kind for error in validate(call, functions) if error.kind == "unknown_function"}
    return tuple(kind for kind in _ORDER if kind in kinds)


def _between(call: Call, target: Call, functions: Sequence[FunctionSpec]) -> set[ErrorKind]:
    invalid = validate(call, functions)
    if call.name != target.name:
        unknown = any(error.kind == "unknown_function" for error in invalid)
        return {"unknown_function" if unknown else "wrong_function"}
    kinds: set[ErrorKind] = set()
    if target.arguments.keys() - call.arguments.keys():
        kinds.add("missing_argument")
    if call.arguments.keys() - target.arguments.keys():
        kinds.add("extra_argument")
    by_argument = {error.argument: error.kind for error in invalid}
    for name in call.arguments.keys() & target.arguments.keys():
        value, want = call.arguments[name], target.arguments[name]
        if not json_equal(value, want):
            kinds.add(by_argument.get(name) or _value_kind(value, want))
    return kinds


def _value_kind(value: Any, want: Any) -> ErrorKind:
    if _json_type(value) != _json_type(want):
        return "wrong_type"
    return "nested" if isinstance(want, Mapping | list) else "wrong_value"


def _json_type(value: Any) -> type:
    if isinstance(value, bool):
        return bool
    return next((kind for kind in (int | float, str, list) if isinstance(value, kind)), type(value))  # type: ignore[return-value]


def _bfcl_like(call: Call, target: Call, functions: Sequence[FunctionSpec]) -> bool:
    spec = next((spec for spec in functions if spec.name == call.name), None)
    if spec is None or call.name != target.name:
        return False
    properties = spec.parameters.get("properties") or {}
    required = spec.parameters.get("required") or ()
    for name in call.arguments.keys() | target.arguments.keys():
        schema = properties.get(name)
        default = schema.get("default", _NOTHING) if isinstance(schema, Mapping) and name not in required else _NOTHING
        if not _lenient_equal(call.arguments.get(name, default), target.arguments.get(name, default)):
            return False
    return True


class _Nothing:
    """An argument that is not there and has no default."""


_NOTHING = _Nothing()


def _lenient_equal(value: Any, want: Any) -> bool:
    if isinstance(value, str) and isinstance(want, str):
        return value.translate(_IGNORED).lower() == want.translate(_IGNORED).lower()
    if isinstance(value, Mapping) and isinstance(want, Mapping):
        return value.keys() == want.keys() and all(_lenient_equal(value[key], want[key]) for key in want)
    if isinstance(value, list) and isinstance(want, list):
        return len(value) == len(want) and all(map(_lenient_equal, value, want))
    return json_equal(value, want)
