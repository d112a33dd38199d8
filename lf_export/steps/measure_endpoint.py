"""Measure an artifact behind a server: answers, what it shows of its distributions, speed alone and under load."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lf_export.errors import ExportError, StepError
from lf_export.functions.dialects import Dialect
from lf_export.metrics.calls import judge_item
from lf_export.metrics.fidelity_top import compare_top
from lf_export.metrics.kept import Kept
from lf_export.metrics.latency import gaps
from lf_export.metrics.latency import measure as measure_latency
from lf_export.metrics.serving import Limits, level
from lf_export.runtimes.endpoint import NAME, Endpoint, EndpointSession, Question
from lf_export.runtimes.endpoint_reply import Reply
from lf_export.steps.arms import no_arms
from lf_export.steps.endpoint_questions import question_of, served
from lf_export.steps.measure import Measured, disk_bytes, workload_key
from lf_export.steps.prompts import Prompt
from lf_export.steps.workload import Advance, Workload

_A = TypeVar("_A")
_B = TypeVar("_B")
# Items are answered this many at a time at the most; only the measurements under load go beyond.
_MOST_TOGETHER = 8


@dataclass(frozen=True)
class ServedArtifact:
    """A server, and the artifact that it serves where that lies on this machine."""

    endpoint: Endpoint
    path: Path | None = None


@dataclass(frozen=True)
class _Asking:
    """What every part of a measurement needs."""

    session: EndpointSession
    workload: Workload
    dialect: Dialect
    tokenizer: Any
    found: Measured
    advance: Advance

    @property
    def chat(self) -> bool:
        return self.session.offer.api == "chat"

    @property
    def ends(self) -> frozenset[int]:
        return frozenset({self.tokenizer.eos_token_id or 0})

    def question(self, prompt: Prompt) -> Question:
        return question_of(prompt, self.dialect, self.tokenizer)

    def together(self, ask: Callable[[_A], _B], asked: Sequence[_A]) -> Iterator[_B]:
        """What `ask` gives for each, several at a time, in order; the first error ends it."""
        most = min(max(self.session.endpoint.concurrency), _MOST_TOGETHER)
        pool = ThreadPoolExecutor(most)
        try:
            yield from pool.map(ask, asked)
        finally:
            pool.shutdown(cancel_futures=True)


def check_endpoint(served_artifact: ServedArtifact, workload: Workload, dialect: Dialect, tokenizer: Any) -> None:
    """See that the server answers, before anything is measured that takes long.

    Raises:
        InputError, MissingError, StepError: as `EndpointSession`.
    """
    with _session(served_artifact.endpoint, workload, dialect, tokenizer):
        pass


def measure_endpoint(
    served_artifact: ServedArtifact,
    workload: Workload,
    dialect: Dialect,
    tokenizer: Any,
    *,
    baseline_logits: Path,
    advance: Advance,
) -> Measured:
    """Ask a server everything in `workload` that a server can be asked; what breaks is a finding.

    Args:
        served_artifact: the server.
        workload: what the baseline was asked.
        dialect: how the model was trained.
        tokenizer: the baseline's, by Transformers.
        baseline_logits: the folder with what stays of the baseline's logits on the reference answers, one file an item.
        advance: tells how far it is.

    Raises:
        MissingError: a package or the key is missing.
    """
    found = Measured(
        NAME, arms=no_arms(workload.arms, "a server is asked as it is deployed, without a grammar of ours")
    )
    if served_artifact.path is not None:
        found.disk_bytes = disk_bytes(served_artifact.path)
    try:
        with _session(served_artifact.endpoint, workload, dialect, tokenizer) as session:
            asking = _Asking(session, workload, dialect, tokenizer, found, advance)
            _say_how(asking)
            if _same_tokens(asking):
                _answers(asking)
                _distributions(asking, baseline_logits)
                _chat(asking)
                _speed(asking)
                _load(asking)
            if session.retried:
                found.notes.append(f"{session.retried} requests were repeated after the server turned them away")
    except ExportError as error:
        if error.status == 4:
            raise
        found.problems.append(error.message)
    return found


def _session(endpoint: Endpoint, workload: Workload, dialect: Dialect, tokenizer: Any) -> EndpointSession:
    shortest = min(workload.prompts, key=lambda prompt: len(prompt.ids))
    return EndpointSession(endpoint, question_of(shortest, dialect, tokenizer))


def _say_how(asking: _Asking) -> None:
    """Notes on what the server was asked, for the report."""
    offer, notes = asking.session.offer, asking.found.notes
    interface = "chat completions" if asking.chat else "completions"
    forms = {"ids": "as token ids", "text": "as text", "text-without-bos": "as text without its BOS"}
    sent = "messages and tools" if asking.chat else f"our prompt {forms[offer.prompt]}"
    notes.append(
        f"model {offer.model} at {asking.session.endpoint.url}: {interface}, {sent}; times are a client's, on this "
        "machine; the server's memory is not seen"
    )
    if not asking.chat and offer.ids_by is None:
        notes.append("the server gives no token ids: special tokens that it leaves out of an answer are not seen")
    if not offer.fresh:
        notes.append("the server cannot be told to share nothing between prompts: its times may profit from its cache")


def _same_tokens(asking: _Asking) -> bool:
    questions = [asking.question(prompt) for prompt in asking.workload.prompts]
    parity = asking.session.parity(questions)
    if parity.problem is None:
        how = {
            "ids": f"token ids equal the baseline's on all {parity.prompts} prompts",
            "count": f"the number of tokens equals the baseline's on {parity.prompts} prompts, ids are not shown",
            "nothing": "the server shows no tokens of a prompt: that its tokenizer is the baseline's is not checked",
        }
        asking.found.notes.append(how[parity.by])
        return True
    if asking.chat:
        # The server's template is part of what is judged here.
        asking.found.notes.append(f"{parity.problem}: its chat template is not the baseline's prompt")
        return True
    asking.found.problems.append(parity.problem)
    return False


def _answers(asking: _Asking) -> None:
    prompts, session, untranslated = asking.workload.prompts, asking.session, 0
    questions = [asking.question(prompt) for prompt in prompts]
    replies = asking.together(lambda each: session.ask(each, asking.workload.max_new_tokens), questions)
    for prompt, question, reply in zip(prompts, questions, replies, strict=True):
        if not asking.chat and (problem := session.counts_otherwise(question, reply)):
            raise StepError(f"{problem}, at item {prompt.item.id}")
        answer = served(reply, asking.dialect, asking.tokenizer, asking.ends, chat=asking.chat)
        untranslated += answer.untranslated
        item = prompt.item
        asking.found.answers[item.id] = judge_item(answer.answer, item, answer.ids, asking.ends)
        asking.advance(1, item.id)
    if untranslated:
        asking.found.notes.append(
            f"{untranslated} answers hold a call as text, not as tool_calls: the server needs a tool parser"
        )


def _distributions(asking: _Asking, baseline_logits: Path) -> None:
    session, workload = asking.session, asking.workload
    if session.offer.scoring is None:
        asking.found.notes.append("KL and top-1 agreement are not measured: no log-probabilities by token id")
        return
    prompts = [prompt for prompt in workload.prompts if prompt.item.id in workload.compared]
    rows = asking.together(lambda prompt: session.candidates(prompt.ids, prompt.answer_ids), prompts)
    for prompt, row in zip(prompts, rows, strict=True):
        theirs = Kept.load(baseline_logits / workload_key(prompt))
        asking.found.shown[prompt.item.id] = compare_top(theirs, [(each.ids, each.logprobs) for each in row])
        asking.advance(1, prompt.item.id)


def _chat(asking: _Asking) -> None:
    """Perplexity, where the server gives the log-probability of each token of a prompt."""
    if asking.workload.chat_groups:
        asking.found.notes.append("the drift of answers in a chat is not measured at a server")
    if not asking.workload.chat:
        return
    if asking.session.offer.scoring != "echo":
        asking.found.notes.append("chat perplexity is not measured: no log-probabilities of a prompt's own tokens")
        return
    for ids, counted in asking.workload.chat:
        start = int(np.argmax(counted))
        own = [each.chosen for each in asking.session.candidates(ids[:start], ids[start:])]
        asking.found.chat_nll += [
            -value for value, counts in zip(own, counted[start:], strict=True) if counts and value is not None
        ]
        asking.advance(1, "chat")


def _speed(asking: _Asking) -> None:
    """Requests one after the other, each token's time."""
    found, workload = asking.found, asking.workload
    if not workload.timed:
        return
    questions = [asking.question(prompt) for prompt in workload.timed]
    asking.session.timed(questions[0], 2)  # warm caches and kernels; not counted
    replies = []
    for question in questions:
        replies.append(asking.session.timed(question, workload.timed_tokens))
        asking.advance(1, "speed")
    times = [_times(reply) for reply in replies]
    found.ttft_seconds = [each[0] for each in times if each]
    found.tpot_seconds = gaps(times)
    found.latency = measure_latency([len(question.ids) for question in questions], times)
    if not all(reply.one_by_one for reply in replies):
        found.notes.append("the server sends several tokens at a time: each is given its share of the wait for them")


def _load(asking: _Asking) -> None:
    """Requests under way together, at each concurrency."""
    endpoint, workload = asking.session.endpoint, asking.workload
    limits = Limits(endpoint.ttft_limit, endpoint.tpot_limit)
    questions = [asking.question(prompt) for prompt in workload.prompts if prompt.item.expected.calls]
    if not questions:
        return

    def timed(question: Question) -> tuple[float, ...] | str:
        try:
            return _times(asking.session.once(question, workload.timed_tokens))
        except ExportError as error:
            return error.message

    place = 0
    for concurrency in endpoint.concurrency:
        count = max(endpoint.requests, concurrency)
        # Each level goes on where the last one ended, so that no level is helped by prompts that it has seen.
        chosen = [questions[(place + number) % len(questions)] for number in range(count)]
        place += count
        with ThreadPoolExecutor(concurrency) as pool:
            began = time.perf_counter()
            answered = list(pool.map(timed, chosen))
            seconds = time.perf_counter() - began
        asking.found.serving.append(level(concurrency, answered, seconds, limits))


def _times(reply: Reply) -> tuple[float, ...]:
    """The time of each token, that of the end token included; where nothing was seen before the end, that alone."""
    times = reply.token_times()
    apart = not reply.cut and (not times or times[-1] < reply.ended)  # else the end came with the last token
    return (*times, reply.ended) if apart or not times else times
