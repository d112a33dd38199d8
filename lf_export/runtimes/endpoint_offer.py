"""What a server offers, found out by asking: interfaces, forms of a prompt, token ids, log-probabilities."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from lf_export.errors import ExportError, InputError, StepError
from lf_export.runtimes.endpoint_http import Http, RefusedError
from lf_export.runtimes.endpoint_reply import Candidates, Reply, read_whole
from lf_export.runtimes.endpoint_settings import Endpoint

TOP_K = 20  # vLLM gives no more unless it is told to
_TRIED = 6
# Two passes over the same tokens differ by less; another distribution does by more.
_SAME = 0.02
Scoring = Literal["echo", "steps"]

# Beyond OpenAI's interface, and harmless: everything greedy, special tokens kept, token ids given, nothing shared
# between prompts. A server that refuses fields it does not know is asked without them.
_WIDER: dict[str, Any] = {
    "repetition_penalty": 1.0,
    "skip_special_tokens": False,
    "spaces_between_special_tokens": False,
    "return_token_ids": True,
}
_FRESH: dict[str, Any] = {"cache_prompt": False, "cache_salt": "lf-export"}
_USAGE: dict[str, Any] = {"stream_options": {"include_usage": True}}
_NOT_OFFERED = frozenset({404, 405, 501})
_NOT_LIKE_THAT = frozenset({400, 422})
_DATED = re.compile(r"-\d{4}-?\d{2}-?\d{2}\Z")


@dataclass(frozen=True)
class Question:
    """One prompt in every form that a server may take.

    Attributes:
        text: our own rendering, its BOS included.
        bos: the BOS that `text` begins with, or "".
        ids: its token ids by the baseline's tokenizer.
        messages: the conversation in OpenAI's form, for the chat interface.
        tools: the functions, likewise.
    """

    text: str
    bos: str
    ids: tuple[int, ...]
    messages: Sequence[Mapping[str, Any]] = ()
    tools: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Offer:
    """How a server is asked.

    Attributes:
        model: the model's name there.
        api: which interface.
        prompt: how our prompt is sent: as token ids, as text, as text whose BOS the server adds.
        extras: fields beyond the necessary ones that it takes.
        fresh: fields that keep it from sharing work between prompts.
        ids_by: fields that make it give token ids of an answer; None: it gives none.
        scoring: how log-probabilities of a given text are got; None: not at all.
        plain: a token that stands for a whole letter, for `steps`.
        tokenizes: whether it has `/tokenize`.
    """

    model: str
    api: Literal["completions", "chat"]
    prompt: Literal["ids", "text", "text-without-bos"] = "ids"
    extras: dict[str, Any] = field(default_factory=dict)
    fresh: dict[str, Any] = field(default_factory=dict)
    ids_by: dict[str, Any] | None = None
    scoring: Scoring | None = None
    plain: int = 0
    tokenizes: bool = False

    def body(self, question: Question, max_tokens: int) -> dict[str, Any]:
        """The fields of a request for a greedy answer."""
        common = {"model": self.model, "max_tokens": max_tokens, "temperature": 0}
        if self.api == "chat":
            tools = {"tools": list(question.tools)} if question.tools else {}
            return common | {"messages": list(question.messages)} | tools
        text = question.text.removeprefix(question.bos) if self.prompt == "text-without-bos" else question.text
        return common | {"prompt": list(question.ids) if self.prompt == "ids" else text}


def find_offer(http: Http, endpoint: Endpoint, sample: Question) -> Offer:
    """What the server offers, tried with `sample`.

    Raises:
        InputError: it has no interface that serves, or several models and none is named.
        StepError: it does not answer, or with nonsense.
    """
    model = endpoint.model or _only_model(http, endpoint)
    first: RefusedError | None = None
    for api in ("completions", "chat") if endpoint.api == "auto" else (endpoint.api,):
        try:
            return (
                _completions(http, endpoint, model, sample)
                if api == "completions"
                else _chat(http, endpoint, model, sample)
            )
        except RefusedError as error:
            if error.code not in _NOT_OFFERED:
                raise
            first = first or error
    raise first or AssertionError


def check_model(asked: str, reply: Reply, url: str) -> None:
    """See that an answer comes from the model that was asked; a name may carry a date or a revision.

    Raises:
        StepError: it comes from another.
    """
    found = reply.model
    if not found or found == asked or found.startswith((f"{asked}@", f"{asked}:")):
        return
    if found.startswith(asked) and _DATED.match(found.removeprefix(asked)):
        return
    raise StepError(
        f"{url}: asked for the model {asked!r}, answered by {found!r}", f"name the model that is served there: {found}"
    )


def _only_model(http: Http, endpoint: Endpoint) -> str:
    url = f"{endpoint.url}/models"
    try:
        listed = http.json("GET", url)
    except RefusedError as error:
        if error.code not in _NOT_OFFERED:
            raise
        raise InputError(f"{url}: the server lists no models ({error.message})", "name the model") from error
    data = listed.get("data") if isinstance(listed, Mapping) else None
    if not isinstance(data, Sequence) or isinstance(data, str):
        raise StepError(f"{url}: no list of models in the answer", "see that the URL is an OpenAI-compatible server's")
    names = [str(each["id"]) for each in data if isinstance(each, Mapping) and each.get("id")]
    if len(names) != 1:
        few = ", ".join(names[:8]) or "none"
        raise InputError(f"{url}: the server lists {len(names)} models: {few}, expected one", "name the model")
    return names[0]


def _completions(http: Http, endpoint: Endpoint, model: str, sample: Question) -> Offer:
    tried = [
        Offer(model, "completions", "ids", _WIDER, _FRESH),
        Offer(model, "completions", "ids"),
        Offer(model, "completions", "text", _WIDER, _FRESH),
        Offer(model, "completions", "text"),
    ]
    offer, reply = _first_taken(http, endpoint, tried, sample)
    return _refined(http, endpoint, offer, sample, reply)


def _chat(http: Http, endpoint: Endpoint, model: str, sample: Question) -> Offer:
    tried = [Offer(model, "chat", "text", _WIDER, _FRESH), Offer(model, "chat", "text")]
    offer, _ = _first_taken(http, endpoint, tried, sample)
    return replace(offer, extras=offer.extras | _usage(http, endpoint, offer, sample))


def _first_taken(http: Http, endpoint: Endpoint, tried: Sequence[Offer], sample: Question) -> tuple[Offer, Reply]:
    """The first way of asking that the server takes, and its answer."""
    for offer in tried:
        try:
            return offer, _tried(http, endpoint, offer, sample)
        except RefusedError as error:
            if error.code not in _NOT_LIKE_THAT or offer is tried[-1]:
                raise
    raise AssertionError


def _tried(http: Http, endpoint: Endpoint, offer: Offer, sample: Question, **more: Any) -> Reply:
    """One token that is not streamed."""
    url = url_of(endpoint, offer)
    body = offer.body(sample, 1) | dict(offer.extras) | dict(offer.fresh) | more
    reply = read_whole(http.json("POST", url, body), url)
    check_model(offer.model, reply, url)
    return reply


def url_of(endpoint: Endpoint, offer: Offer) -> str:
    """Where answers are asked for."""
    return f"{endpoint.url}/{'chat/completions' if offer.api == 'chat' else 'completions'}"


def _refined(http: Http, endpoint: Endpoint, offer: Offer, sample: Question, reply: Reply) -> Offer:
    """What else can be had from an interface that answers."""
    if offer.prompt == "text" and sample.bos and reply.prompt_tokens == len(sample.ids) + 1:
        offer = replace(offer, prompt="text-without-bos")
    ids_by: dict[str, Any] | None = {} if reply.ids else None
    if ids_by is None and (asked := _quietly(http, endpoint, offer, sample, logprobs=1)) and asked.ids:
        ids_by = {"logprobs": 1}
    if offer.prompt == "ids":
        offer = _scored(http, endpoint, offer, sample)
    return replace(
        offer,
        extras=offer.extras | _usage(http, endpoint, offer, sample),
        ids_by=ids_by,
        tokenizes=tokenized(http, endpoint, offer, sample.text) is not None,
    )


def _usage(http: Http, endpoint: Endpoint, offer: Offer, sample: Question) -> dict[str, Any]:
    """The field that has the counts of tokens at a stream's end, where the server takes it."""
    url = url_of(endpoint, offer)
    body = offer.body(sample, 1) | dict(offer.extras) | dict(_USAGE) | {"stream": True}
    try:
        for _ in http.retrying(lambda: list(http.events(url, body))):
            pass
    except RefusedError as error:
        if error.code in _NOT_LIKE_THAT:
            return {}
        raise
    return _USAGE


def _scored(http: Http, endpoint: Endpoint, offer: Offer, sample: Question) -> Offer:
    """The offer with how log-probabilities are given with token ids: for a whole prompt, or for the next token only.

    llama.cpp shows none where the next token is but a part of a letter, so that another is forced: that this leaves
    the log-probabilities as they are is seen where both are shown.
    """
    echoed = _quietly(http, endpoint, offer, sample, **echo_fields())
    if echoed and len(echoed.candidates) > len(sample.ids) and tuple(echoed.ids[: len(sample.ids)]) == sample.ids:
        return replace(offer, scoring="echo")
    for end in range(len(sample.ids), max(len(sample.ids) - _TRIED, 0), -1):
        shorter = replace(sample, ids=sample.ids[:end])
        freely = _quietly(http, endpoint, offer, shorter, **(step_fields(0) | {"logit_bias": {}}))
        if freely is None:
            return offer
        if not freely.candidates:
            continue
        for plain in dict.fromkeys(sample.ids[: -_TRIED - 1 : -1]):
            forced = _quietly(http, endpoint, offer, shorter, **step_fields(plain))
            if forced and len(forced.candidates) == 1 and _alike(freely.candidates[0], forced.candidates[0]):
                return replace(offer, scoring="steps", plain=plain)
    return offer


def _alike(one: Candidates, other: Candidates) -> bool:
    return len(one.ids) > 1 and all(
        index == same and abs(value - also) < _SAME
        for index, same, value, also in zip(one.ids, other.ids, one.logprobs, other.logprobs, strict=False)
    )


def echo_fields() -> dict[str, Any]:
    """Fields that have the log-probabilities of a prompt's own tokens."""
    return {"echo": True, "logprobs": TOP_K, "return_tokens_as_token_ids": True}


def step_fields(plain: int) -> dict[str, Any]:
    """Fields that have those of the next token, an end token included, while the token `plain` is written."""
    bias = {"logit_bias": {str(plain): 100.0}, "ignore_eos": True}
    return {"logprobs": TOP_K, "return_tokens_as_token_ids": True, "cache_prompt": True} | bias


def _quietly(http: Http, endpoint: Endpoint, offer: Offer, sample: Question, **more: Any) -> Reply | None:
    """As `_tried`; None where the server cannot do it."""
    try:
        return _tried(http, endpoint, offer, sample, **more)
    except RefusedError:
        return None


def tokenized(http: Http, endpoint: Endpoint, offer: Offer, text: str) -> tuple[int, ...] | None:
    """The server's own token ids of `text`, in llama.cpp's way of asking and vLLM's; None where it has no `/tokenize`.

    Special tokens are recognised, none is added.
    """
    body = {
        "model": offer.model, "content": text, "add_special": False, "parse_special": True,
        "prompt": text, "add_special_tokens": False,
    }  # fmt: skip
    try:
        found = http.json("POST", f"{endpoint.root}/tokenize", body)
    except ExportError:
        return None
    tokens = found.get("tokens") if isinstance(found, Mapping) else None
    return tuple(tokens) if isinstance(tokens, list) and all(isinstance(each, int) for each in tokens) else None
