"""An OpenAI-compatible server's answer, read event by event and believed in nothing that can be checked."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lf_export.errors import StepError
from lf_export.runtimes.endpoint_http import TurnedAwayError

_ID_MARK = "token_id:"
# Log-probabilities are float32 and rounded: this much over 0, or of their sum over 1, is no lie.
_ROUNDING = 1e-3


@dataclass(frozen=True)
class Candidates:
    """The likeliest next tokens of one position, the likeliest first.

    Attributes:
        ids: token ids.
        logprobs: their log-probabilities, nats.
        chosen: log-probability of the token that stands there, where the server says it.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    chosen: float | None = None


@dataclass
class Reply:
    """One answer.

    Attributes:
        text: the answer's text.
        ids: its token ids, where the server gave them all.
        calls: calls of functions that the server read from it, in OpenAI's form.
        arrivals: seconds from the request to each piece that held something, and how many tokens it held, where known.
        ended: seconds to the end of the answer.
        finish: why it ended: stop, length, tool_calls, …
        prompt_tokens: the prompt's length as the server counts.
        completion_tokens: the answer's length as the server counts.
        candidates: by position, where log-probabilities were asked for and given.
    """

    text: str = ""
    ids: list[int] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    arrivals: list[tuple[float, int | None]] = field(default_factory=list)
    ended: float = float("nan")
    finish: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    candidates: list[Candidates] = field(default_factory=list)
    model: str | None = None

    @property
    def token_ids(self) -> tuple[int, ...] | None:
        """The answer's token ids, where the server gave those of every token that it counts.

        llama.cpp holds back a letter of several tokens until it is whole, and then gives the id of its last token.
        """
        count = self.completion_tokens
        whole = count is not None and len(self.ids) in ({count} if self.cut else {count, count - 1})
        return tuple(self.ids) if whole and self.ids else None

    @property
    def cut(self) -> bool:
        """Whether the answer reached the limit before it ended by itself."""
        return self.finish == "length"

    def token_times(self) -> tuple[float, ...]:
        """Seconds to each token; tokens that came together are spread evenly over the wait for them."""
        if not self.arrivals:
            return ()
        counts = self._counts()
        times = [self.arrivals[0][0]] * counts[0]
        for (before, _), (now, _), count in zip(self.arrivals, self.arrivals[1:], counts[1:], strict=False):
            times += [before + (now - before) * (place + 1) / count for place in range(count)]
        return tuple(times)

    def _counts(self) -> list[int]:
        """Tokens in each piece: as the server said, else one, and what is over after the first piece by turns."""
        counts = [1 if count is None else max(count, 1) for _, count in self.arrivals]
        if self.token_ids is None and self.completion_tokens is not None and len(counts) > 1:
            over = self.completion_tokens - (self.finish == "stop") - sum(counts)
            for place in range(max(over, 0)):
                counts[1 + place % (len(counts) - 1)] += 1
        return counts

    @property
    def one_by_one(self) -> bool:
        """Whether each token came in a piece of its own, so that their times are their own."""
        return all(count == 1 for count in self._counts())


def read_stream(events: Iterable[Any], url: str, began: float, most: int) -> Reply:
    """The answer that a stream of events holds.

    Args:
        events: the JSON value of each event.
        url: for messages.
        began: when the request was sent, by `time.perf_counter`.
        most: how many tokens were asked for.

    Raises:
        TurnedAwayError: the stream ended before the answer did.
        StepError: an error in the stream, no choice in it, far more than was asked for, or another form.
    """
    reply = Reply()
    for event in events:
        now = time.perf_counter() - began
        _take_head(reply, event, url)
        choice = _choice(event, url)
        if choice is None:
            continue
        delta = _part(choice, "delta")
        ids = _take(reply, choice, delta, url)
        if ids or _text(delta) or delta.get("tool_calls") or delta.get("reasoning_content"):
            reply.arrivals.append((now, len(ids) if ids is not None else None))
        if choice.get("finish_reason"):
            reply.finish, reply.ended = str(choice["finish_reason"]), now
        if len(reply.arrivals) > 4 * most + 64:
            raise StepError(
                f"{url}: {len(reply.arrivals)} pieces of an answer of at most {most} tokens",
                "the server does not honour max_tokens",
            )
    if reply.finish is None:
        pieces = f"after {len(reply.arrivals)} pieces" if reply.arrivals else "with nothing in it"
        raise TurnedAwayError(f"{url}: the stream ended {pieces} and without a finish_reason", "see the server's log")
    return reply


def read_whole(value: Any, url: str) -> Reply:
    """The answer of a response that was not streamed.

    Raises:
        StepError: an error, no choice, or another form.
    """
    reply = Reply()
    _take_head(reply, value, url)
    choice = _choice(value, url)
    if choice is None:
        raise StepError(f"{url}: no choices in the answer", "see that the model is loaded")
    _take(reply, choice, _part(choice, "message"), url)
    reply.finish = str(choice.get("finish_reason"))
    return reply


def _take_head(reply: Reply, event: Any, url: str) -> None:
    if not isinstance(event, Mapping):
        raise StepError(f"{url}: {type(event).__name__} in the answer, expected an object")
    if event.get("error"):
        error = event["error"]
        said = error.get("message", error) if isinstance(error, Mapping) else error
        raise StepError(f"{url}: the server failed: {str(said)[:300]}", "see the server's log")
    if isinstance(event.get("model"), str):
        reply.model = event["model"]
    if isinstance(usage := event.get("usage"), Mapping):
        reply.prompt_tokens = _count(usage.get("prompt_tokens"), url) or reply.prompt_tokens
        reply.completion_tokens = _count(usage.get("completion_tokens"), url) or reply.completion_tokens


def _choice(event: Mapping[str, Any], url: str) -> Mapping[str, Any] | None:
    choices = event.get("choices")
    if not choices and isinstance(event.get("usage"), Mapping):
        return None  # the last event, with the counts
    if not isinstance(choices, Sequence) or not choices or not isinstance(choices[0], Mapping):
        raise StepError(f"{url}: no choices in the answer", "see that the URL is an OpenAI-compatible server's")
    first: Mapping[str, Any] = choices[0]
    return first


def _take(reply: Reply, choice: Mapping[str, Any], delta: Mapping[str, Any], url: str) -> list[int] | None:
    """Add a piece to the answer; its token ids, None where it has none."""
    reply.text += _text(delta)
    for call in delta.get("tool_calls") or ():
        _take_call(reply, call, url)
    found = list(_positions(choice.get("logprobs"), url))
    reply.candidates += [candidates for _, candidates in found]
    given = choice.get("token_ids")
    if isinstance(given, list) and all(isinstance(each, int) for each in given):
        ids = given
    elif found and all(index is not None for index, _ in found):
        ids = [index for index, _ in found if index is not None]
    else:
        return None
    reply.ids += ids
    return ids


def _part(choice: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What holds an answer's text: the chat interface has it one level down."""
    part = choice.get(name)
    return part if isinstance(part, Mapping) else choice


def _text(delta: Mapping[str, Any]) -> str:
    text = delta.get("text", delta.get("content"))
    return text if isinstance(text, str) else ""


def _take_call(reply: Reply, call: Any, url: str) -> None:
    """Add what a piece says of a call: pieces with the same index are one call, whose arguments are joined."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        raise StepError(f"{url}: tool_calls in another form than OpenAI's")
    index = call.get("index", len(reply.calls))
    if index != len(reply.calls) - 1 and not (isinstance(index, int) and 0 <= index < len(reply.calls)):
        reply.calls.append({"type": "function", "function": {"name": "", "arguments": ""}})
        index = len(reply.calls) - 1
    kept = reply.calls[index]["function"]
    for key in ("name", "arguments"):
        part = function.get(key)
        if isinstance(part, Mapping):  # some servers give the object itself
            kept[key] = part
        elif isinstance(part, str) and isinstance(kept[key], str):
            kept[key] += part


def _positions(logprobs: Any, url: str) -> Iterator[tuple[int | None, Candidates]]:
    """Each position's token id and candidates, in llama.cpp's form (ids) or vLLM's (`token_id:…` as tokens)."""
    if not isinstance(logprobs, Mapping):
        return
    if isinstance(content := logprobs.get("content"), list):
        for place in content:
            top = place.get("top_logprobs") or []
            pairs = [(each.get("id"), each.get("logprob")) for each in top]
            yield place.get("id"), _candidates(pairs, place.get("logprob"), url)
        return
    tokens, chosen = logprobs.get("tokens") or [], logprobs.get("token_logprobs") or []
    tops = logprobs.get("top_logprobs") or [None] * len(tokens)
    for token, own, top in zip(tokens, chosen, tops, strict=False):
        yield _id_of(token), _candidates([(_id_of(name), value) for name, value in (top or {}).items()], own, url)


def _id_of(token: Any) -> int | None:
    digits = str(token).removeprefix(_ID_MARK)
    return int(digits) if str(token).startswith(_ID_MARK) and digits.isdecimal() else None


def _candidates(pairs: Sequence[tuple[Any, Any]], own: Any, url: str) -> Candidates:
    """Candidates in order; those without an id are left out.

    Raises:
        StepError: a log-probability that is none.
    """
    known = [(index, value) for index, value in pairs if isinstance(index, int)]
    values = [value for _, value in known] + ([] if own is None else [own])
    if not all(isinstance(value, int | float) and math.isfinite(value) and value <= _ROUNDING for value in values):
        raise StepError(f"{url}: log-probabilities that are none: {values[:3]}", "see the server's log for NaN")
    if sum(math.exp(value) for _, value in known) > 1 + _ROUNDING:
        raise StepError(f"{url}: log-probabilities of one position that add up to more than 1")
    # vLLM gives the chosen token on top of the likeliest: a token that stands twice counts once.
    known = sorted(dict(known).items(), key=lambda pair: -pair[1])
    return Candidates(tuple(index for index, _ in known), tuple(float(value) for _, value in known), own)


def _count(value: Any, url: str) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or value < 0:
        raise StepError(f"{url}: {value!r} as a count of tokens")
    return value
