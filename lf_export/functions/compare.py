"""Is an answer the expected calls: the strict score, BFCL's, what went wrong and where, argument by argument."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from lf_export.functions.answers import Answer, Call
from lf_export.functions.bfcl import bfcl_abstained, bfcl_right
from lf_export.functions.issues import CallIssue, is_right, issues_of, nearest, right_arguments
from lf_export.functions.models import schema_error
from lf_export.functions.possible import ExactCall, PossibleCall, Wanted, possible_of
from lf_export.functions.spec import FunctionSpec
from lf_export.functions.validate import ErrorKind

_ORDER: tuple[ErrorKind, ...] = get_args(ErrorKind)


@dataclass(frozen=True)
class CallOutcome:
    """How an answer compares with the expected calls.

    Attributes:
        exact: the same calls, in any order unless it matters, with the same argument names and right JSON values; for
            an item that expects no call, an answer in prose.
        name_ok: the same function names, whatever the arguments.
        issues: what is wrong, by place; empty exactly when `exact`.
        bfcl_like: right by the rules of the Berkeley leaderboard's AST checker.
        arguments_expected: arguments that the expected calls need.
        arguments_right: how many of these were given with a right value, in a call of the right function.
        schema_error: the class of the first mistake that the functions' Pydantic models find in the calls; None where
            they find none, and where the answer makes no call.
    """

    exact: bool
    name_ok: bool
    issues: tuple[CallIssue, ...]
    bfcl_like: bool
    arguments_expected: int = 0
    arguments_right: int = 0
    schema_error: str | None = None

    @property
    def errors(self) -> tuple[ErrorKind, ...]:
        """The kinds of what is wrong, each once."""
        kinds = {issue.kind for issue in self.issues}
        return tuple(kind for kind in _ORDER if kind in kinds)


def compare(
    answer: Answer,
    expected: Sequence[Call],
    functions: Sequence[FunctionSpec],
    *,
    possible: Sequence[PossibleCall] = (),
    ordered: bool = False,
) -> CallOutcome:
    """Compare an answer with the expected calls, or with none.

    Args:
        answer: what the model said.
        expected: the calls that it should make; none for an abstention.
        functions: those that it was shown.
        possible: the expected calls with all their right values, where there are several; they then decide.
        ordered: whether the calls must come in the order of the expected ones (the leaderboard's score has no order).

    The leaderboard's score takes a call out of a code fence. Where an item has no possible values of its own, an
    argument that equals the schema's `default` may be left out or added, and what is exact is right.
    """
    invalid = _schema_error(answer, functions)
    if not expected:
        return _abstention(answer, invalid)
    wanted: Sequence[Wanted] = possible or [ExactCall(call) for call in expected]
    needed = sum(len(each.needed) for each in wanted)
    if possible:
        lenient = bfcl_right(answer.calls, possible)
    else:
        lenient = bfcl_right(answer.calls, [possible_of(call, functions) for call in expected])
    if answer.kind != "call":
        kind: ErrorKind = "malformed" if answer.kind == "malformed" else "not_a_call"
        return CallOutcome(
            exact=False, name_ok=False, issues=(CallIssue(kind),), bfcl_like=lenient, arguments_expected=needed
        )
    names = sorted(call.name for call in answer.calls) == sorted(each.name for each in wanted)
    matched = _matched(answer.calls, wanted)
    whole = len(matched) == len(wanted) == len(answer.calls)
    in_order = whole and (not ordered or all(map(is_right, answer.calls, wanted)))
    pairs = matched | nearest(answer.calls, wanted, matched, functions)
    issues: tuple[CallIssue, ...] = ()
    if not whole:
        issues = issues_of(answer.calls, wanted, pairs, functions)
    elif not in_order:
        issues = (CallIssue("order"),)
    return CallOutcome(
        exact=in_order,
        name_ok=names,
        issues=issues,
        bfcl_like=lenient or (in_order and not possible),
        arguments_expected=needed,
        arguments_right=sum(right_arguments(answer.calls[at], wanted[target]) for target, at in pairs.items()),
        schema_error=invalid,
    )


def _abstention(answer: Answer, invalid: str | None) -> CallOutcome:
    kinds: dict[str, ErrorKind] = {"call": "unwanted_call", "malformed": "malformed", "empty": "not_a_call"}
    right = answer.kind == "prose"
    return CallOutcome(
        exact=right,
        name_ok=right,
        issues=() if right else (CallIssue(kinds[answer.kind]),),
        bfcl_like=bfcl_abstained(answer),
        schema_error=invalid,
    )


def _schema_error(answer: Answer, functions: Sequence[FunctionSpec]) -> str | None:
    if answer.kind != "call":
        return None
    return next((error for call in answer.calls if (error := schema_error(call, functions))), None)


def _matched(calls: Sequence[Call], wanted: Sequence[Wanted]) -> dict[int, int]:
    """As many expected calls as possible with calls that are right for them: expected → call.

    Augmenting paths: where several values are right, greed could miss a pairing.
    """
    right = [[at for at, call in enumerate(calls) if is_right(call, each)] for each in wanted]
    taken: dict[int, int] = {}  # call -> expected

    def place(target: int, seen: set[int]) -> bool:
        for at in right[target]:
            if at not in seen:
                seen.add(at)
                if at not in taken or place(taken[at], seen):
                    taken[at] = target
                    return True
        return False

    for target in range(len(wanted)):
        place(target, set())
    return {target: at for at, target in taken.items()}
