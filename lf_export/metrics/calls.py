"""What an artifact answered to one item, and whether that was right."""

from collections.abc import Sequence
from dataclasses import dataclass

from lf_export.functions.answers import Answer, Call
from lf_export.functions.compare import compare
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
        bfcl_like: right by rules like BFCL's.
        errors: the kinds of what is wrong.
        cut: the answer reached the token limit before an end token.
        loops: it was cut while it repeated itself.
        text: the answer.
    """

    kind: str
    exact: bool
    name_ok: bool
    bfcl_like: bool
    errors: tuple[str, ...]
    cut: bool
    loops: bool
    text: str


def judge(
    answer: Answer,
    expected: Sequence[Call],
    functions: Sequence[FunctionSpec],
    ids: Sequence[int],
    ends: frozenset[int],
) -> JudgedAnswer:
    """Judge the parsed `answer`, generated as the tokens `ids`, against the expected calls (none: abstain)."""
    outcome = compare(answer, expected, functions)
    cut = not ids or ids[-1] not in ends
    return JudgedAnswer(
        kind=answer.kind,
        exact=outcome.exact,
        name_ok=outcome.name_ok,
        bfcl_like=outcome.bfcl_like,
        errors=tuple(outcome.errors),
        cut=cut,
        loops=cut and is_loop(ids),
        text=answer.text,
    )


def is_loop(ids: Sequence[int]) -> bool:
    """Whether the last tokens are some stretch of at most 24 tokens, four times over."""
    for period in range(1, _LOOP_PERIOD + 1):
        tail = ids[-period * _LOOP_TIMES :]
        if len(tail) == period * _LOOP_TIMES and all(tail[at] == tail[at + period] for at in range(len(tail) - period)):
            return True
    return False
