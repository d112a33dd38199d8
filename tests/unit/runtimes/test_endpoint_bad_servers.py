"""A dead, a slow, a truncating and a lying server: each is an error that says what and where, within its time."""

import re
import socket
import time
from typing import Any

import pytest
from fake_server import MODEL, Behaviour, Handler, choice, fake_server, says, streams, usage

from lf_export.errors import ExportError, InputError, StepError
from lf_export.runtimes.endpoint import Endpoint, EndpointSession, Question

ASKED = Question("<s>hello", "<s>", (1, 7, 8))


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def _open(url: str) -> EndpointSession:
    limits = Endpoint(url, read_timeout=0.4, total_timeout=1.0, connect_timeout=0.5, retries=1)
    return EndpointSession(limits, ASKED, sleep=lambda _: None)


def _failure(**behaviours: Behaviour) -> ExportError:
    """How it fails when a server turns bad after it was found good: within two seconds."""
    with fake_server() as server, _open(server.url) as session:
        server.behaviours |= {f"/v1/{name}": behaviour for name, behaviour in behaviours.items()}
        began = time.monotonic()
        with pytest.raises(ExportError) as caught:
            session.ask(ASKED, 8)
        assert time.monotonic() - began < 2.5
        assert server.url in caught.value.message
        return caught.value


def test_a_server_that_refuses_connections_is_named_with_what_to_do() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        waits: list[float] = []
        with pytest.raises(StepError, match=r"cannot connect: .*, 3 times") as caught:
            EndpointSession(Endpoint(url, retries=2), ASKED, sleep=waits.append)
    assert caught.value.hint == "start the server, or correct the URL"
    assert len(waits) == 2
    assert 0 < waits[0] < waits[1]


def _hangs(handler: Handler, _: dict[str, Any]) -> None:
    handler.server.stopped.wait(5)


def _hangs_in_the_middle(handler: Handler, _: dict[str, Any]) -> None:
    handler.start_stream()
    handler.event(choice("It"))
    handler.server.stopped.wait(5)


def _only_pings(handler: Handler, _: dict[str, Any]) -> None:
    handler.start_stream()
    while not handler.server.stopped.wait(0.05):
        handler.wfile.write(b": ping\n\n")
        handler.wfile.flush()


def _cut_stream(handler: Handler, _: dict[str, Any]) -> None:
    handler.start_stream()
    handler.event(choice("It"))


def _cut_chunks(handler: Handler, _: dict[str, Any]) -> None:
    handler.start_stream(transfer_encoding="chunked")
    handler.wfile.write(b"40\r\ndata: ")


def _longer_than_it_is(handler: Handler, _: dict[str, Any]) -> None:
    handler.start_stream(content_length="5000")
    handler.event(choice("It"))


def _shorter_than_it_is(handler: Handler, _: dict[str, Any]) -> None:
    handler.start_stream(content_length="20")
    handler.event(choice("It", "stop"))


def _endless(handler: Handler, _: dict[str, Any]) -> None:
    handler.start_stream()
    while not handler.server.stopped.is_set():
        handler.event(choice("It"))


def _huge_line(handler: Handler, _: dict[str, Any]) -> None:
    handler.start_stream()
    while not handler.server.stopped.is_set():
        handler.wfile.write(b"data: " + b"x" * 65536)


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        pytest.param(_hangs, "sent nothing for 0.4 s", id="hangs"),
        pytest.param(_hangs_in_the_middle, "sent nothing for 0.4 s", id="hangs in the middle"),
        pytest.param(_only_pings, "no complete answer within 1 s", id="pings for ever"),
        pytest.param(_cut_stream, "ended after 1 pieces and without a finish_reason, 2 times", id="cut stream"),
        pytest.param(_cut_chunks, "the connection broke: .*, 2 times", id="cut chunks"),
        pytest.param(_longer_than_it_is, "the connection broke: .*, 2 times", id="Content-Length too long"),
        pytest.param(_shorter_than_it_is, "not JSON|without a finish_reason", id="Content-Length too short"),
        pytest.param(_endless, "96 pieces of an answer of at most 8 tokens|97 pieces", id="endless"),
        pytest.param(_huge_line, "more than .* bytes|exceeded the .* byte limit", id="huge line"),
        pytest.param(says(200, "<html>Welcome</html>", "text/html"), "text/html, expected a stream", id="HTML"),
        pytest.param(says(200, '{"error": {"message": "no GPU"}}'), "application/json, .*: no GPU", id="JSON error"),
        pytest.param(streams("{not json"), "not JSON: {not json", id="invalid JSON"),
        pytest.param(streams([1, 2]), "list in the answer, expected an object", id="another form"),
        pytest.param(streams({"model": MODEL, "choices": []}), "no choices in the answer", id="empty choices"),
        pytest.param(streams(usage(3, 0)), "ended with nothing in it", id="no choice at all"),
        pytest.param(streams(choice("It"), {"error": "out of memory"}), "server failed: out of memory", id="error"),
        pytest.param(
            streams(choice("It", "stop") | {"model": "other"}), "asked for the model 'tiny', answered by 'other'",
            id="wrong model",
        ),
        pytest.param(
            streams('{"choices": [{"text": "x", "logprobs": {"content": [{"id": 1, "logprob": NaN}]}}]}'),
            "not JSON: .*NaN", id="NaN",
        ),
        pytest.param(
            streams(choice("x", logprobs={"content": [{"id": 1, "logprob": 0.7}]})), "log-probabilities that are none",
            id="probability over 1",
        ),
        pytest.param(
            streams(choice("x", logprobs={"content": [{"id": 1, "logprob": -0.1, "top_logprobs": [
                {"id": 1, "logprob": -0.1}, {"id": 2, "logprob": -0.2}]}]})), "add up to more than 1", id="over 1",
        ),
        pytest.param(streams(choice("It", "stop") | usage(-3, 1)), "-3 as a count of tokens", id="negative count"),
        pytest.param(says(200, "x", "text/event-stream", content_encoding="gzip"), "a compressed answer", id="gzip"),
        pytest.param(says(302, "", location="http://evil.example/v1"), "redirects to http://evil.example/v1", id="302"),
        pytest.param(says(401, '{"error": {"message": "who?"}}'), "HTTP 401: who", id="401"),
        pytest.param(says(500, "<html>oh no</html>"), "HTTP 500: <html>oh no</html>, 2 times", id="500"),
        pytest.param(says(429, "{}", retry_after="3600"), "HTTP 429: .*, once", id="429 for an hour"),
    ],
)  # fmt: skip
def test_a_bad_server_is_an_error_that_says_what_and_where_in_time(behaviour: Behaviour, said: str) -> None:
    error = _failure(completions=behaviour)
    assert isinstance(error, StepError | InputError)
    assert re.search(said, error.message), error.message


def test_an_answer_without_end_is_left_at_the_largest_size() -> None:
    def endless(handler: Handler, _: dict[str, Any]) -> None:
        handler.start_stream("application/json")
        while not handler.server.stopped.is_set():
            handler.wfile.write(b" " * 65536)

    with fake_server(models=endless) as server, pytest.raises(StepError, match="more than 1,048,576 bytes"):
        EndpointSession(Endpoint(server.url, max_answer_bytes=1 << 20, total_timeout=20), ASKED)
