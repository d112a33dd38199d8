"""Servers that behave, and servers that do not: each gives an answer or an error that says what to do, in time."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from fake_server import (
    MODEL,
    FakeServer,
    Handler,
    choice,
    completions,
    fake_server,
    not_found,
    says,
    streams,
    usage,
)

from lf_export.errors import ExportError, InputError, MissingError, StepError
from lf_export.runtimes.endpoint import Endpoint, EndpointSession, Question
from lf_export.runtimes.endpoint_http import Http
from lf_export.runtimes.endpoint_settings import api_key

ASKED = Question("<s>hello", "<s>", (1, 7, 8), [{"role": "user", "content": "hello"}])
KEY = "sk-secret-0123456789"


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def _open(server: FakeServer, **settings: Any) -> EndpointSession:
    limits: dict[str, Any] = {"read_timeout": 0.4, "total_timeout": 1.0, "connect_timeout": 0.5, "retries": 1}
    return EndpointSession(Endpoint(server.url, **(limits | settings)), ASKED, sleep=lambda _: None)


def test_an_answer_has_its_text_and_a_time_for_each_token() -> None:
    with fake_server() as server, _open(server) as session:
        reply = session.ask(ASKED, 8)
        assert (reply.text, reply.cut, reply.prompt_tokens) == ("It is sunny", False, 3)
        times = reply.token_times()
        assert len(times) == 3
        assert sorted(times) == list(times)
        assert session.ask(ASKED, 2).cut
        sent = [body for path, _, body in server.seen if path == "/v1/completions"]
        assert all(body["temperature"] == 0 and body["model"] == MODEL for body in sent)
        assert sent[-1]["prompt"] == [1, 7, 8]
        assert sent[-1]["max_tokens"] == 2


def test_a_prompt_goes_as_text_where_token_ids_are_refused() -> None:
    good = completions(prompt_tokens=3)

    def only_text(handler: Handler, body: dict[str, Any]) -> None:
        (good if isinstance(body["prompt"], str) else says(400, '{"detail": "prompt must be a string."}'))(
            handler, body
        )

    with fake_server(completions=only_text) as server, _open(server) as session:
        assert session.offer.prompt == "text"
        session.ask(ASKED, 4)
        assert server.seen[-1][2]["prompt"] == "<s>hello"


def test_a_bos_that_the_server_adds_by_itself_is_not_sent_twice() -> None:
    def adds_bos(handler: Handler, body: dict[str, Any]) -> None:
        if not isinstance(body["prompt"], str):
            says(422, "{}")(handler, body)
            return
        count = 4 if body["prompt"].startswith("<s>") else 3
        completions(prompt_tokens=count)(handler, body)

    with fake_server(completions=adds_bos) as server, _open(server) as session:
        assert session.offer.prompt == "text-without-bos"
        session.ask(ASKED, 4)
        assert server.seen[-1][2]["prompt"] == "hello"
        assert session.parity([ASKED]).problem is None


def test_fields_that_a_server_does_not_know_are_left_out() -> None:
    def strict(handler: Handler, body: dict[str, Any]) -> None:
        known = {"model", "prompt", "max_tokens", "temperature", "stream"}
        (says(422, '{"detail": "unexpected fields"}') if body.keys() - known else completions())(handler, body)

    with fake_server(completions=strict) as server, _open(server) as session:
        assert session.ask(ASKED, 4).text == "It is sunny"
        assert session.offer.extras == {}
        assert session.offer.scoring is None


def test_without_completions_the_chat_interface_is_asked_and_calls_are_joined() -> None:
    def chat(handler: Handler, body: dict[str, Any]) -> None:
        if not body.get("stream"):
            handler.send(200, json.dumps({"model": MODEL, "choices": [{"message": {"content": "x"},
                                                                      "finish_reason": "length"}]}))  # fmt: skip
            return
        handler.start_stream()
        parts: list[dict[str, Any]] = [
            {"index": 0, "id": "a", "function": {"name": "get", "arguments": ""}},
            {"index": 0, "function": {"arguments": '{"city":'}},
            {"index": 0, "function": {"arguments": '"Rome"}'}},
            {"index": 1, "id": "b", "function": {"name": "stop", "arguments": "{}"}},
        ]
        for part in parts:
            handler.event({"model": MODEL, "choices": [{"delta": {"tool_calls": [part]}, "finish_reason": None}]})
        handler.event({"model": MODEL, "choices": [{"delta": {}, "finish_reason": "tool_calls"}]})

    tools = [{"type": "function", "function": {"name": "get"}}]
    with fake_server(completions=not_found, chat=chat) as server, _open(server) as session:
        assert session.offer.api == "chat"
        reply = session.ask(replace(ASKED, tools=tools), 8)
        assert [call["function"] for call in reply.calls] == [
            {"name": "get", "arguments": '{"city":"Rome"}'},
            {"name": "stop", "arguments": "{}"},
        ]
        assert server.seen[-1][2]["tools"] == tools


def test_a_server_that_is_busy_is_asked_again_after_as_long_as_it_says() -> None:
    turned_away = [("2", 429), ("0.5", 503), (None, 500)]

    def busy(handler: Handler, body: dict[str, Any]) -> None:
        if not turned_away:
            completions()(handler, body)
            return
        after, status = turned_away.pop(0)
        handler.send(status, "{}", **({"retry_after": after} if after else {}))

    waits: list[float] = []
    with fake_server() as server:
        session = EndpointSession(Endpoint(server.url, retries=3), ASKED, sleep=waits.append)
        server.behaviours["/v1/completions"] = busy
        assert session.ask(ASKED, 8).text == "It is sunny"
        session.close()
    assert waits[:2] == [2.0, 0.5]
    assert 1.5 <= waits[2] <= 2.5  # the third pause by itself, with jitter
    assert session.retried == 3


def test_under_load_nothing_is_asked_again() -> None:
    with fake_server() as server, _open(server) as session:
        server.behaviours["/v1/completions"] = says(429, "{}")
        before = len(server.seen)
        with pytest.raises(StepError, match="HTTP 429"):
            session.once(ASKED, 8)
        assert len(server.seen) == before + 1


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ('{"data": []}', "lists 0 models: none"),
        ('{"data": [{"id": "a"}, {"id": "b"}]}', "lists 2 models: a, b"),
        ('{"data": 5}', "no list of models"),
        ("<html>", "not JSON: <html>"),
        ("[]", "no list of models"),
    ],
)
def test_which_model_is_asked_is_never_guessed(listed: str, said: str) -> None:
    with fake_server(models=says(200, listed)) as server, pytest.raises(ExportError, match=said):
        _open(server)


def test_a_model_that_is_named_is_not_looked_up() -> None:
    with fake_server(models=says(500, "")) as server, _open(server, model=MODEL) as session:
        assert session.offer.model == MODEL


def test_the_key_goes_to_the_server_alone_and_into_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with fake_server() as other, fake_server() as server, _open(server) as session:
        assert all(headers["Authorization"] == f"Bearer {KEY}" for _, headers, _ in server.seen)
        for behaviour in (
            says(401, json.dumps({"error": {"message": f"wrong key {KEY}"}})),
            says(500, f"the key {KEY}"),
            says(307, "", location=f"{other.url}?key={KEY}"),
            streams(f"{{not json {KEY}"),
            streams({"error": f"key {KEY}"}),
            streams(choice("x", "stop") | {"model": KEY}),
        ):
            server.behaviours["/v1/completions"] = behaviour
            with pytest.raises(ExportError) as caught:
                session.ask(ASKED, 4)
            shown = f"{caught.value.message} {caught.value.hint} {caught.value!r} {caught.value.__cause__!r}"
            assert KEY not in shown
        server.behaviours["/v1/completions"] = completions((KEY[:5], KEY[5:]))
        assert KEY not in session.ask(ASKED, 4).text
        assert other.seen == []


def test_a_key_for_another_service_does_not_go_over_the_network_in_the_clear() -> None:
    environment = {"OPENAI_API_KEY": KEY, "MINE": "  other \n", "ODD": "a\nb", "EMPTY": " "}
    assert api_key(Endpoint("http://10.0.0.5:8000/v1"), environment) is None
    assert api_key(Endpoint("https://gpu.example/v1"), environment) == KEY
    assert api_key(Endpoint("http://127.0.0.1:8000/v1"), environment) == KEY
    assert api_key(Endpoint("http://10.0.0.5:8000/v1", api_key_env="MINE"), environment) == "other"
    assert api_key(Endpoint("http://127.0.0.1:8000/v1"), {}) is None
    with pytest.raises(MissingError, match="the environment variable EMPTY is not set"):
        api_key(Endpoint("http://127.0.0.1:8000/v1", api_key_env="EMPTY"), environment)
    with pytest.raises(InputError, match="ODD holds letters") as caught:
        api_key(Endpoint("http://127.0.0.1:8000/v1", api_key_env="ODD"), environment)
    assert "a\nb" not in caught.value.message


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://host/v1", "with http or https"),
        ("127.0.0.1:8080", "with http or https"),
        ("http://", "with http or https"),
        ("http://user:secret@host/v1", "credentials in a URL"),
        ("http://secret@host/v1", "credentials in a URL"),
        ("http://host:99999/v1", "not a URL"),
        ("http://[::1/v1", "not a URL"),
        ("http://host/v1?key=secret", "no query"),
        ("http://host/v1#secret", "no fragment (#…)"),
        ("http://host/ v1", "white space"),
        ("file:///etc/passwd", "with http or https"),
    ],
)
def test_a_url_that_is_none_or_has_a_secret_is_refused_without_repeating_it(url: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        Endpoint(url)
    assert said in caught.value.message
    assert "secret" not in caught.value.message


def test_a_slash_at_the_end_of_a_url_does_not_count() -> None:
    assert Endpoint("https://host/v1/").url == "https://host/v1"
    assert Endpoint("https://host/v1/").root == "https://host"


def test_without_httpx2_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "httpx2", None)
    with pytest.raises(MissingError) as caught:
        Http(Endpoint("http://127.0.0.1:1/v1"), None)
    assert caught.value.hint == "pip install 'lf-export[endpoint]'"


@pytest.fixture
def tokenizes() -> Iterator[Callable[[list[int]], tuple[FakeServer, EndpointSession]]]:
    opened = []

    def make(tokens: list[int]) -> tuple[FakeServer, EndpointSession]:
        context = fake_server(tokenize=says(200, json.dumps({"tokens": tokens})))
        server = context.__enter__()
        session = _open(server)
        opened.append((context, session))
        return server, session

    yield make
    for context, session in opened:
        session.close()
        context.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("tokens", "problem"),
    [
        ([1, 7, 8], None),
        ([1, 1, 7, 8], "the server puts token 1 (a BOS?) before a prompt"),
        ([7, 8], "the server leaves out token 1 (the BOS?) at the start of a prompt"),
        ([1, 7, 9], "the server's token ids differ from the baseline's, first at token 2 of a prompt"),
        ([], "the server's token ids differ from the baseline's, first at token 0 of a prompt"),
    ],
)
def test_token_ids_are_compared_where_the_server_has_tokenize(
    tokenizes: Callable[..., Any], tokens: list[int], problem: str | None
) -> None:
    _, session = tokenizes(tokens)
    parity = session.parity([ASKED])
    assert (parity.by, parity.problem) == ("ids", problem)


def test_the_number_of_tokens_is_compared_where_ids_are_not_shown() -> None:
    with fake_server() as server, _open(server) as session:
        assert (session.parity([ASKED] * 20).by, session.parity([ASKED]).problem) == ("count", None)
        server.behaviours["/v1/completions"] = completions(prompt_tokens=4)
        found = session.parity([ASKED]).problem
        assert found == "the server reads 4 tokens in a prompt of 3 (does it add a BOS of its own?)"


def test_a_server_that_counts_nothing_leaves_the_tokens_unchecked() -> None:
    with fake_server() as server, _open(server) as session:
        server.behaviours["/v1/completions"] = streams(choice("x", "length"))
        assert session.parity([ASKED]).by == "nothing"


def _vllm(handler: Handler, body: dict[str, Any]) -> None:
    """Log-probabilities as vLLM gives them: of the prompt too, tokens as `token_id:…`."""
    ids = body["prompt"]
    if body.get("echo"):
        names = [f"token_id:{each}" for each in [*ids, 9]]
        tops = [None, *({name: -1.0, "token_id:3": -0.6} for name in names[1:])]
        logprobs = {"tokens": names, "token_logprobs": [None, *([-1.0] * len(ids))], "top_logprobs": tops}
        handler.send(200, json.dumps(choice("x", "length", logprobs=logprobs)))
        return
    completions()(handler, body)


def test_a_prompts_own_log_probabilities_are_taken_in_one_request() -> None:
    with fake_server(completions=_vllm) as server, _open(server) as session:
        assert session.offer.scoring == "echo"
        before = len(server.seen)
        found = session.candidates([1, 7], [8, 4])
        assert len(server.seen) == before + 1
        assert [(each.ids, each.logprobs, each.chosen) for each in found] == [
            ((3, 8), (-0.6, -1.0), -1.0),
            ((3, 4), (-0.6, -1.0), -1.0),
        ]


def test_log_probabilities_of_other_tokens_than_were_sent_are_an_error() -> None:
    def shifted(handler: Handler, body: dict[str, Any]) -> None:
        _vllm(handler, body | {"prompt": [0, *body["prompt"]]})

    with fake_server(completions=_vllm) as server, _open(server) as session:
        server.behaviours["/v1/completions"] = shifted
        with pytest.raises(StepError, match="log-probabilities of other tokens than were sent"):
            session.candidates([1, 7], [8, 4])


def test_an_echo_of_other_tokens_is_not_used() -> None:
    def shifted(handler: Handler, body: dict[str, Any]) -> None:
        _vllm(handler, body | {"prompt": [0, *body["prompt"]]} if body.get("echo") else body)

    with fake_server(completions=shifted) as server, _open(server) as session:
        assert session.offer.scoring is None


@pytest.mark.parametrize(("name", "fits"), [("tiny-2026-11-23", True), ("tiny@main", True), ("tiny-awq", False)])
def test_a_models_name_may_carry_a_date_or_a_revision_and_nothing_else(name: str, fits: bool) -> None:
    with fake_server() as server, _open(server) as session:
        server.behaviours["/v1/completions"] = streams(choice("x", "length") | {"model": name})
        with contextlib.nullcontext() if fits else pytest.raises(StepError, match="answered by 'tiny-awq'"):
            assert session.ask(ASKED, 4).text == "x"


def test_tokens_that_come_together_share_the_wait_for_them() -> None:
    def pairs(handler: Handler, body: dict[str, Any]) -> None:
        if not body.get("stream"):
            completions()(handler, body)
            return
        handler.start_stream()
        for text in ("ab", "cd", "ef"):
            time.sleep(0.02)
            handler.event(choice(text, token_ids=[1, 2]))
        handler.event(choice("", "stop") | usage(3, 7))

    with fake_server(completions=pairs) as server, _open(server) as session:
        reply = session.timed(ASKED, 8)
        times = reply.token_times()
        assert reply.token_ids == (1, 2) * 3
        assert not reply.one_by_one
        assert len(times) == 6
        assert times[2] - times[1] == pytest.approx(times[3] - times[2])
