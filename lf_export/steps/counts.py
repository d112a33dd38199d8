"""From answers to counts: exact calls, errors, arguments and abstentions, whole and by category, slice and variant."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from lf_export.calibration.slices import SLICES, slices_of
from lf_export.metrics.calls import JudgedAnswer
from lf_export.report.model import (
    AbstentionCounts,
    ArgumentAccuracy,
    CallMetrics,
    CategoryCounts,
    NoCallMetrics,
    VariantMetrics,
)
from lf_export.stats import cluster_bootstrap
from lf_export.steps.prompts import Prompt

Answers = Mapping[str, JudgedAnswer]
_Judged = tuple[Prompt, JudgedAnswer]


def call_metrics(prompts: Sequence[Prompt], answers: Answers) -> CallMetrics | None:
    """The counts of items that expect calls; None where none was answered."""
    judged = _judged(prompts, answers)
    if not judged:
        return None
    given = [answer for _, answer in judged]
    schema_errors = Counter(answer.schema_error for answer in given if answer.schema_error is not None)
    return CallMetrics(
        **_counts(given),
        name_ok=sum(answer.name_ok for answer in given),
        by_category=_grouped(judged, lambda prompt: [prompt.item.category], sorted),
        by_slice=_grouped(judged, lambda prompt: slices_of(prompt.item), _by_rank),
        arguments=_argument_accuracy(given),
        schema_valid=sum(answer.schema_valid for answer in given),
        schema_errors=dict(schema_errors.most_common()),
        errors=dict(Counter(kind for answer in given for kind in answer.errors).most_common()),
    )


def no_call_metrics(prompts: Sequence[Prompt], answers: Answers) -> NoCallMetrics | None:
    """The counts of items that expect no call; None where none was answered."""
    judged = _judged(prompts, answers)
    if not judged:
        return None
    kinds = Counter(answer.kind for _, answer in judged)
    slices = {name for prompt, _ in judged for name in slices_of(prompt.item)}
    return NoCallMetrics(
        n=kinds.total(),
        abstained=kinds["prose"],
        malformed=kinds["malformed"],
        empty=kinds["empty"],
        called=kinds["call"],
        bfcl_like=sum(answer.bfcl_like for _, answer in judged),
        by_slice={
            name: AbstentionCounts(n=len(members), abstained=sum(answer.kind == "prose" for answer in members))
            for name in _by_rank(slices)
            if (members := [answer for prompt, answer in judged if name in slices_of(prompt.item)])
        },
    )


def variant_metrics(prompts: Sequence[Prompt], answers: Answers) -> dict[str, VariantMetrics]:
    """The counts of items that are variants, by variant in alphabetical order."""
    found = {}
    for variant in sorted({prompt.item.variant for prompt in prompts if prompt.item.variant}):
        members = [prompt for prompt in prompts if prompt.item.variant == variant]
        calls = call_metrics([prompt for prompt in members if prompt.item.expected.calls], answers)
        no_call = no_call_metrics([prompt for prompt in members if not prompt.item.expected.calls], answers)
        if calls or no_call:
            found[variant] = VariantMetrics(calls=calls, no_call=no_call)
    return found


def _judged(prompts: Sequence[Prompt], answers: Answers) -> list[_Judged]:
    return [(prompt, answers[prompt.item.id]) for prompt in prompts if prompt.item.id in answers]


def _counts(answers: Sequence[JudgedAnswer]) -> dict[str, int]:
    return {
        "n": len(answers),
        "strict_exact": sum(answer.exact for answer in answers),
        "bfcl_like": sum(answer.bfcl_like for answer in answers),
    }


def _grouped(
    judged: Sequence[_Judged],
    names_of: Callable[[Prompt], Iterable[str]],
    order: Callable[[Iterable[str]], list[str]],
) -> dict[str, CategoryCounts]:
    members: dict[str, list[JudgedAnswer]] = {}
    for prompt, answer in judged:
        for name in names_of(prompt):
            members.setdefault(name, []).append(answer)
    return {name: CategoryCounts(**_counts(members[name])) for name in order(members)}


def _by_rank(names: Iterable[str]) -> list[str]:
    return sorted(names, key=SLICES.index)


def _argument_accuracy(answers: Sequence[JudgedAnswer]) -> ArgumentAccuracy:
    """The arguments of one item stand or fall together, so the items are the clusters of the interval."""
    clusters = [
        np.repeat([1.0, 0.0], [answer.arguments_right, answer.arguments_expected - answer.arguments_right])
        for answer in answers
        if answer.arguments_expected
    ]
    interval = cluster_bootstrap(clusters)
    return ArgumentAccuracy(
        expected=sum(answer.arguments_expected for answer in answers),
        right=sum(answer.arguments_right for answer in answers),
        lower=interval.lower,
        upper=interval.upper,
    )
