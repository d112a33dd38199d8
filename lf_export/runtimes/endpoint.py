"""The `endpoint` runtime: an artifact behind an OpenAI-compatible server (llama-server, vLLM, SGLang, Ollama, …).

It is no `Session`: a server has no logits, only the log-probabilities of its likeliest tokens.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from lf_export.errors import ExportError, StepError
from lf_export.runtimes.endpoint_http import Http
from lf_export.runtimes.endpoint_offer import (
    Offer,
    Question,
    check_model,
    echo_fields,
    find_offer,
    step_fields,
    tokenized,
    url_of,
)
from lf_export.runtimes.endpoint_reply import Candidates, Reply, read_stream, read_whole
from lf_export.runtimes.endpoint_settings import Endpoint, api_key

__all__ = ["NAME", "Endpoint", "EndpointSession", "Parity", "Question"]

NAME = "endpoint"
# How many prompts have their tokens counted before anything is scored, where ids cannot be compared; the count of
# every later answer is compared as it comes.
_COUNTED = 8


@dataclass(frozen=True)
class Parity:
    """Whether the server's tokenizer is the baseline's.

    Attributes:
        by: what was compared: token ids, their count, or nothing.
        prompts: how many prompts were.
        problem: what differs, in words.
    """

    by: str
    prompts: int
    problem: str | None = None


class EndpointSession:
    """A server that answers questions; use it as a context manager. Threads may share it.

    Args:
        endpoint: the server.
        sample: a question that finds out what it offers.
        sleep: waits between two attempts.

    Raises:
        InputError: the server refuses what it is asked, or which model is asked is not clear.
        MissingError: httpx2 is not installed, or the key is not in the environment.
        StepError: it does not answer, or with nonsense.
    """

    def __init__(self, endpoint: Endpoint, sample: Question, sleep: Callable[[float], None] = time.sleep) -> None:
        self.endpoint = endpoint
        self._http = Http(endpoint, api_key(endpoint), sleep)
        try:
            self.offer: Offer = find_offer(self._http, endpoint, sample)
        except BaseException:
            self.close()
            raise
        self._url = url_of(endpoint, self.offer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def retried(self) -> int:
        """How many requests were repeated so far."""
        return self._http.retried

    def close(self) -> None:
        """End the connections."""
        self._http.close()

    def parity(self, questions: Sequence[Question]) -> Parity:
        """Compare the server's tokens of each question with the baseline's, as exactly as the server allows."""
        if self.offer.tokenizes:
            for number, question in enumerate(questions):
                ids = tokenized(self._http, self.endpoint, self.offer, question.text)
                if ids != question.ids:
                    return Parity("ids", number + 1, _difference(ids or (), question))
            return Parity("ids", len(questions))
        chosen = sorted(questions, key=lambda question: len(question.ids))[:: max(1, len(questions) // _COUNTED)]
        counted = 0
        for question in chosen:
            reply = self._asked(question, 1)
            if reply.prompt_tokens is None:
                return Parity("nothing", counted)
            counted += 1
            if problem := self.counts_otherwise(question, reply):
                return Parity("count", counted, problem)
        return Parity("count", counted)

    def counts_otherwise(self, question: Question, reply: Reply) -> str | None:
        """What differs where the server counts other tokens in the question than the baseline's tokenizer has."""
        if reply.prompt_tokens in {None, len(question.ids)}:
            return None
        over = " (does it add a BOS of its own?)" if reply.prompt_tokens == len(question.ids) + 1 else ""
        return f"the server reads {reply.prompt_tokens} tokens in a prompt of {len(question.ids)}{over}"

    def ask(self, question: Question, max_tokens: int) -> Reply:
        """A greedy answer, with token ids where the server gives them.

        Raises:
            StepError: none after all attempts, or one that cannot be believed.
        """
        reply = self._asked(question, max_tokens, **(self.offer.ids_by or {}))
        if self.offer.tokenizes and reply.token_ids is None and (ids := self._native_ids(question, max_tokens)):
            reply.ids, reply.completion_tokens = ids, len(ids)
        return reply

    def _native_ids(self, question: Question, max_tokens: int) -> list[int] | None:
        """The answer's token ids by llama.cpp's own interface, which gives all of them; None elsewhere."""
        if self.offer.prompt != "ids":
            return None
        body = {"prompt": list(question.ids), "n_predict": max_tokens, "temperature": 0, "return_tokens": True}
        try:
            found = self._http.json("POST", f"{self.endpoint.root}/completion", body)
        except ExportError:
            return None
        tokens = found.get("tokens") if isinstance(found, dict) else None
        whole = isinstance(tokens, list) and len(tokens) <= max_tokens and all(isinstance(each, int) for each in tokens)
        return tokens if whole else None

    def timed(self, question: Question, max_tokens: int) -> Reply:
        """A greedy answer for its times: nothing is shared with other prompts where the server can be told so."""
        return self._asked(question, max_tokens, **self.offer.fresh)

    def once(self, question: Question, max_tokens: int) -> Reply:
        """As `timed`, without a second attempt: under load, being turned away is what is measured."""
        return self._attempt(self.offer.body(question, max_tokens) | dict(self.offer.fresh), max_tokens)

    def candidates(self, prompt: Sequence[int], answer: Sequence[int]) -> list[Candidates]:
        """The likeliest tokens at each place of `answer` after `prompt`, teacher-forced.

        Raises:
            StepError: the server gives none, or fewer than there are places.
        """
        if self.offer.scoring == "echo":
            whole = [*prompt, *answer]
            reply = self._whole(whole, echo_fields())
            if len(reply.candidates) < len(whole) or reply.ids[: len(whole)] != whole:
                raise StepError(f"{self._url}: log-probabilities of other tokens than were sent")
            return reply.candidates[len(prompt) : len(whole)]
        found = []
        for place in range(len(answer)):
            reply = self._whole([*prompt, *answer[:place]], step_fields(self.offer.plain))
            if len(reply.candidates) != 1:
                raise StepError(f"{self._url}: {len(reply.candidates)} positions with log-probabilities, expected 1")
            found += reply.candidates
        return found

    def _whole(self, ids: list[int], fields: dict[str, Any]) -> Reply:
        body = self.offer.body(Question("", "", tuple(ids)), 1) | dict(self.offer.extras) | fields
        body.pop("stream_options", None)
        reply = read_whole(self._http.json("POST", self._url, body), self._url)
        check_model(self.offer.model, reply, self._url)
        return reply

    def _asked(self, question: Question, max_tokens: int, **fields: Any) -> Reply:
        body = self.offer.body(question, max_tokens) | fields
        reply: Reply = self._http.retrying(lambda: self._attempt(body, max_tokens))
        return reply

    def _attempt(self, body: dict[str, Any], most: int) -> Reply:
        began = time.perf_counter()
        events: Iterable[Any] = self._http.events(self._url, body | dict(self.offer.extras) | {"stream": True})
        reply = read_stream(events, self._url, began, most)
        check_model(self.offer.model, reply, self._url)
        reply.text = self._http.scrubbed(reply.text)
        return reply


def _difference(found: Sequence[int], question: Question) -> str:
    ours = question.ids
    place = next((place for place, pair in enumerate(zip(found, ours, strict=False)) if pair[0] != pair[1]), None)
    if tuple(found[1:]) == ours:
        return f"the server puts token {found[0]} (a BOS?) before a prompt"
    if tuple(ours[1:]) == tuple(found):
        return f"the server leaves out token {ours[0]} (the BOS?) at the start of a prompt"
    where = min(len(found), len(ours)) if place is None else place
    return f"the server's token ids differ from the baseline's, first at token {where} of a prompt"
