"""A server in a thread that answers as it is told: well, slowly, with lies, or not at all."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behaviour = Callable[["Handler", dict[str, Any]], None]
MODEL = "tiny"


class Handler(BaseHTTPRequestHandler):
    """One request; behaviours call its methods."""

    protocol_version = "HTTP/1.1"
    server: "FakeServer"

    def do_GET(self) -> None:
        """Answer."""
        self._handle({})

    def do_POST(self) -> None:
        """Answer to a JSON body."""
        self._handle(json.loads(self.rfile.read(int(self.headers["content-length"]))))

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _handle(self, body: dict[str, Any]) -> None:
        with self.server.lock:
            self.server.seen.append((self.path, dict(self.headers), body))
            behaviour = self.server.behaviours.get(self.path, not_found)
        behaviour(self, body)

    def send(self, status: int, body: str, kind: str = "application/json", **headers: str) -> None:
        """A whole response."""
        data = body.encode()
        self.send_response(status)
        for name, value in {"content-type": kind, "content-length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def start_stream(self, kind: str = "text/event-stream", **headers: str) -> None:
        """The head of a response whose body ends with the connection."""
        self.close_connection = True
        self.send_response(200)
        for name, value in {"content-type": kind, "connection": "close", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def event(self, value: Any) -> None:
        """One event of a stream."""
        text = value if isinstance(value, str) else json.dumps(value)
        self.wfile.write(f"data: {text}\n\n".encode())
        self.wfile.flush()


class FakeServer(ThreadingHTTPServer):
    """Answers on a port of its own until it is closed; `seen` has every request as (path, headers, body)."""

    daemon_threads = True

    def __init__(self, behaviours: dict[str, Behaviour]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviours = behaviours
        self.seen: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.lock = threading.Lock()
        self.stopped = threading.Event()

    def handle_error(self, *_: Any) -> None:
        """A client that went away is no news."""

    @property
    def url(self) -> str:
        """Where its interface begins."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


@contextmanager
def fake_server(**behaviours: Behaviour) -> Iterator[FakeServer]:
    """A server; `models`, `completions`, `chat` and `tokenize` replace what it does well."""
    paths = {"models": "/v1/models", "completions": "/v1/completions", "chat": "/v1/chat/completions",
             "tokenize": "/tokenize"}  # fmt: skip
    well: dict[str, Behaviour] = {"models": models, "completions": completions(), "chat": not_found}
    server = FakeServer({paths[name]: each for name, each in (well | behaviours).items()})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()


def not_found(handler: Handler, _: dict[str, Any]) -> None:
    handler.send(404, json.dumps({"error": {"message": "no such path"}}))


def models(handler: Handler, _: dict[str, Any]) -> None:
    handler.send(200, json.dumps({"data": [{"id": MODEL}]}))


def says(status: int, body: str, kind: str = "application/json", **headers: str) -> Behaviour:
    """Always the same response."""
    return lambda handler, _: handler.send(status, body, kind, **headers)


def choice(text: str = "", finish: str | None = None, **more: Any) -> dict[str, Any]:
    """One event of the completions interface."""
    return {"model": MODEL, "choices": [{"index": 0, "text": text, "finish_reason": finish, **more}]}


def usage(prompt: int, completion: int) -> dict[str, Any]:
    """The counts at the end of an answer."""
    return {"usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}}


def completions(texts: Sequence[str] = ("It", " is", " sunny"), *, prompt_tokens: int | None = None) -> Behaviour:
    """The completions interface as it should be, with the same words each time; it takes token ids and text."""

    def behave(handler: Handler, body: dict[str, Any]) -> None:
        kept = texts[: body["max_tokens"]]
        finish = "length" if len(kept) == body["max_tokens"] else "stop"
        prompt = body["prompt"]
        count = prompt_tokens if prompt_tokens is not None else len(prompt) if isinstance(prompt, list) else 0
        counts = usage(count, len(kept) + (finish == "stop"))
        if not body.get("stream"):
            handler.send(200, json.dumps(choice("".join(kept), finish) | counts))
            return
        handler.start_stream()
        for text in kept:
            handler.event(choice(text))
        handler.event(choice("", finish) | counts)
        handler.event("[DONE]")

    return behave


def streams(*values: Any) -> Behaviour:
    """Always the same events."""

    def behave(handler: Handler, _: dict[str, Any]) -> None:
        handler.start_stream()
        for value in values:
            handler.event(value)
        handler.event("[DONE]")

    return behave
