"""What the chat suite says of an artifact: perplexity, and greedy answers against the baseline's."""

from collections.abc import Mapping

import numpy as np

from lf_export.metrics import fidelity
from lf_export.metrics.drift import drift
from lf_export.report.chat import ChatDrift, PartedAnswer
from lf_export.runtimes.child import ChildSession
from lf_export.stats import wilson
from lf_export.steps.recorded import Said
from lf_export.steps.workload import Advance, Workload

_SHOWN = 3
_SHOWN_CHARACTERS = 2000


def chat_nll(session: ChildSession, workload: Workload, advance: Advance) -> list[float]:
    """Negative log-likelihood of each counted token of the chat suite, nats."""
    found: list[float] = []
    for ids, counted in workload.chat:
        start = int(np.argmax(counted))
        (logits,) = session.score((), [ids], [start])
        nll = fidelity.nll(logits, ids[start:])
        found += nll[counted[start:]].tolist()
        advance(1, "chat")
    return found


def chat_answers(session: ChildSession, workload: Workload, advance: Advance) -> dict[str, Said]:
    """Greedy answers to the conversations of `workload.chat_groups`, by item id."""
    found: dict[str, Said] = {}
    if not workload.chat_groups:
        return found
    asked = [(group.prefix, group.branches) for group in workload.chat_groups]
    for number, answered in session.generate_groups(asked, workload.chat_tokens):
        for prompt, generation in zip(workload.chat_groups[number].prompts, answered, strict=True):
            found[prompt.item.id] = (tuple(generation.ids), generation.text)
            advance(1, prompt.item.id)
    return found


def chat_drift(baseline: Mapping[str, Said], artifact: Mapping[str, Said]) -> ChatDrift | None:
    """The report's part on greedy answers; None where none was asked for."""
    found = drift(_ids(baseline), _ids(artifact))
    if found is None:
        return None
    sure = wilson(found.identical, found.answers)
    return ChatDrift(
        answers=found.answers,
        identical=found.identical,
        identical_lower=sure.lower,
        identical_upper=sure.upper,
        agreed=found.agreed,
        agreed_lower=found.agreed_lower,
        agreed_upper=found.agreed_upper,
        first_difference=found.first_difference,
        parted=[
            PartedAnswer(
                item=name,
                baseline=baseline[name][1][:_SHOWN_CHARACTERS],
                artifact=artifact[name][1][:_SHOWN_CHARACTERS],
            )
            for name in found.farthest[:_SHOWN]
        ],
    )


def _ids(answers: Mapping[str, Said]) -> dict[str, tuple[int, ...]]:
    return {name: ids for name, (ids, _) in answers.items()}
