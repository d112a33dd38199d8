"""What an artifact answered to one item, and whether that was right."""

from collections.abc import Sequence
from dataclasses import dataclass

from lf_export.calibration.suites import EvalItem
from lf_export.functions.answers import Answer, Call
from lf_export.functions.compare import compare
from lf_export.functions.issues import CallIssue
from lf_export.functions.possible import PossibleCall
from lf_export.functions.spec import FunctionSpec

_LOOP_PERIOD = 24
_LOOP_TIMES = 4


@dataclass(frozen=True)
class JudgedAnswer:
    """One answer to one item.

    Attributes:
        kind: call, prose, malformed or empty.
        exact: strictly right; for an item without expected calls, prose.
        name_ok: the right function names, whatever the arguments.
        bfcl_like: right by BFCL's rules.
        errors: the kinds of what is wrong; a wrong answer without an end has `truncated`, or `loop`, among them.
        cut: the answer reached the token limit before an end token.
        loops: it was cut while it repeated itself.
        text: the answer.
        issues: what is wrong, by place.
        arguments_expected: arguments that the expected calls need.
        arguments_right: how many of these are right.
        schema_error: the first mistake by the functions' Pydantic models; None where there is none, or no call.
    """

    kind: str
    exact: bool
    name_ok: bool
    bfcl_like: bool
    errors: tuple[str, ...]
    cut: bool
    loops: bool
    text: str
    issues: tuple[CallIssue, ...] = ()
    arguments_expected: int = 0
    arguments_right: int = 0
    schema_error: str | None = None

    @property
    def schema_valid(self) -> bool:
        """Whether the answer is calls that the functions' Pydantic models take."""
        return self.kind == "call" and self.schema_error is None


def judge(
    answer: Answer,
    expected: Sequence[Call],
    functions: Sequence[FunctionSpec],
    ids: Sequence[int],
    ends: frozenset[int],
    *,
    possible: Sequence[PossibleCall] = (),
    ordered: bool = False,
) -> JudgedAnswer:
    """Judge the parsed `answer`, generated as the tokens `ids`, against the expected calls (none: abstain).

    `possible` and `ordered` are those of `lf_export.functions.compare.compare`.
    """
    outcome = compare(answer, expected, functions, possible=possible, ordered=ordered)
    cut = not ids or ids[-1] not in ends
    loops = cut and is_loop(ids)
    errors: tuple[str, ...] = outcome.errors
    if cut and not outcome.exact:
        errors = (*errors, "loop" if loops else "truncated")
    return JudgedAnswer(
        kind=answer.kind,
        exact=outcome.exact,
        name_ok=outcome.name_ok,
        bfcl_like=outcome.bfcl_like,
        errors=errors,
        cut=cut,
        loops=loops,
        text=answer.text,
        issues=outcome.issues,
        arguments_expected=outcome.arguments_expected,
        arguments_right=outcome.arguments_right,
        schema_error=outcome.schema_error,
    )


def judge_item(answer: Answer, item: EvalItem, ids: Sequence[int], ends: frozenset[int]) -> JudgedAnswer:
    """Judge the parsed answer to an item by all that the item says of what is right."""
    return judge(answer, item.expected.calls, item.functions, ids, ends, possible=item.possible, ordered=item.ordered)


def is_loop(ids: Sequence[int]) -> bool:
    """Whether the last tokens are some stretch of at most 24 tokens, four times over."""
    for period in range(1, _LOOP_PERIOD + 1):
        tail = ids[-period * _LOOP_TIMES :]
        if len(tail) == period * _LOOP_TIMES and all(tail[at] == tail[at + period] for at in range(len(tail) - period)):
            return True
    return False
