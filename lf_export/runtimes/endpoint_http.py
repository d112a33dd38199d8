"""HTTP to an OpenAI-compatible server: limits, retries, and errors that say what to do.

httpx2, because it is maintained, reads server-sent events, and is there already: Transformers' hub client needs it.
"""

import contextlib
import importlib
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from lf_export.errors import ExportError, InputError, MissingError, StepError
from lf_export.runtimes.endpoint_settings import DEFAULT_KEY, Endpoint

if TYPE_CHECKING:
    import httpx2

_RETRIED = frozenset({408, 429, 500, 502, 503, 504})
_FIRST_WAIT = 0.5
_LONGEST_WAIT = 8.0
# A server that wants a longer pause than this is not there for a benchmark.
_LONGEST_RETRY_AFTER = 60.0
_KEPT = 300
# What a server says about an error; more is not read.
_ERROR_BYTES = 1 << 16
_HIDDEN = "[key]"


class RefusedError(InputError):
    """The server refused a request; `code` is the HTTP status."""

    def __init__(self, message: str, hint: str | None, code: int) -> None:
        super().__init__(message, hint)
        self.code = code


class TurnedAwayError(StepError):
    """The server turned a request away or the connection broke; another attempt may succeed."""

    def __init__(self, message: str, hint: str | None = None, *, after: float | None = None) -> None:
        super().__init__(message, hint)
        self.after = after


class Http:
    """A connection to one server.

    Proxies are taken from the environment, as httpx2 does; redirects are never followed, so the key goes to the host
    of the URL alone.

    Args:
        endpoint: the server.
        key: sent as a bearer token; never part of a message, and taken out of what the server says.
        sleep: waits between two attempts.

    Raises:
        MissingError: httpx2 is not installed.
    """

    def __init__(self, endpoint: Endpoint, key: str | None, sleep: Callable[[float], None] = time.sleep) -> None:
        try:
            self._lib: Any = importlib.import_module("httpx2")
        except ImportError as error:
            raise MissingError("the runtime endpoint needs httpx2", "pip install 'lf-export[endpoint]'") from error
        self._endpoint, self._key, self._sleep = endpoint, key, sleep
        most = max(endpoint.concurrency)
        # Bodies come as they are: a small answer could unpack to gigabytes.
        headers = {"Accept-Encoding": "identity", "User-Agent": "lf-export"}
        self._client: httpx2.Client = self._lib.Client(
            headers=headers | ({"Authorization": f"Bearer {key}"} if key else {}),
            timeout=self._lib.Timeout(endpoint.read_timeout, connect=endpoint.connect_timeout),
            limits=self._lib.Limits(max_connections=most + 1, max_keepalive_connections=most + 1),
            follow_redirects=False,
        )
        self.retried = 0

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def scrubbed(self, text: str) -> str:
        """`text` without the key."""
        return text.replace(self._key, _HIDDEN) if self._key else text

    def json(self, method: str, url: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON value that the server answers with.

        Raises:
            RefusedError: an HTTP status of the 300s or 400s but 408 and 429.
            StepError: no answer after all attempts, or one that is not JSON.
        """
        return self.retrying(lambda: self._json_once(method, url, body))

    def retrying(self, attempt: Callable[[], Any]) -> Any:
        """What `attempt` gives, repeated with a growing pause while the server turns it away."""
        for number in range(self._endpoint.retries + 1):
            try:
                return attempt()
            except TurnedAwayError as error:
                if number == self._endpoint.retries or (error.after or 0) > _LONGEST_RETRY_AFTER:
                    raise StepError(f"{error.message}, {_times(number + 1)}", error.hint) from error
                self.retried += 1
                # Jitter, so that many requests that were turned away together do not come back together.
                wait = min(_FIRST_WAIT * 2**number, _LONGEST_WAIT) * random.uniform(0.75, 1.25)  # noqa: S311
                self._sleep(wait if error.after is None else error.after)
        raise AssertionError

    def events(self, url: str, body: Mapping[str, Any]) -> Iterator[Any]:
        """One attempt at a streamed answer: the JSON value of each event, up to the end of the stream.

        Raises:
            RefusedError: the server refused the request.
            TurnedAwayError: it turned it away, or the connection broke.
            StepError: no event stream, one with other things than JSON, one that is too long or too slow.
        """
        with self._sent("POST", url, body, "text/event-stream") as response:
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "text/event-stream":
                self._wrong_kind(response, url, kind)
            for event in self._lib.EventSource(response, max_event_size=self._endpoint.max_answer_bytes):
                if event.data.strip() == "[DONE]":
                    return
                if event.data:
                    yield self._value(event.data, url)

    def _json_once(self, method: str, url: str, body: Mapping[str, Any] | None) -> Any:
        with self._sent(method, url, body, "application/json") as response:
            return self._value(response.read().decode("utf-8", "replace"), url)

    @contextlib.contextmanager
    def _sent(self, method: str, url: str, body: Mapping[str, Any] | None, accept: str) -> "Iterator[httpx2.Response]":
        """A response whose status is 200 and whose body is bounded in size and time."""
        endpoint, lib = self._endpoint, self._lib
        began = time.monotonic()
        try:
            with self._client.stream(method, url, json=body, headers={"Accept": accept}) as response:
                if response.headers.get("content-encoding", "identity").lower() != "identity":
                    raise StepError(f"{url}: a compressed answer, though an uncompressed one was asked for")
                failed = response.status_code != 200
                most = _ERROR_BYTES if failed else endpoint.max_answer_bytes
                response.stream = _bounded(lib, response.stream, url, most, began + endpoint.total_timeout, endpoint)
                if failed:
                    self._failed(response, url)
                yield response
        except lib.ConnectTimeout as error:
            message = f"{url}: no connection within {endpoint.connect_timeout:g} s"
            raise StepError(message, "see that the address is right and the server reachable") from error
        except lib.ConnectError as error:
            message = f"{url}: cannot connect: {self._said(str(error))}"
            raise TurnedAwayError(message, "start the server, or correct the URL") from error
        except lib.TimeoutException as error:
            message = f"{url}: the server sent nothing for {endpoint.read_timeout:g} s"
            raise StepError(message, "see what the server is doing, or give it more time (read_timeout)") from error
        except (lib.RemoteProtocolError, lib.NetworkError) as error:
            raise TurnedAwayError(f"{url}: the connection broke: {self._said(str(error))}") from error
        except lib.HTTPError as error:
            raise StepError(f"{url}: {type(error).__name__}: {self._said(str(error))}") from error
        except (lib.InvalidURL, UnicodeError) as error:
            raise InputError(f"{url}: not a URL that can be asked: {self._said(str(error))}") from None

    def _failed(self, response: "httpx2.Response", url: str) -> NoReturn:
        """Raise what a status other than 200 means."""
        code = response.status_code
        if 300 <= code < 400:
            target = urlsplit(response.headers.get("location", ""))
            where = self._said(f"{target.scheme}://{target.hostname}{target.path}" if target.hostname else target.path)
            raise RefusedError(f"{url}: redirects to {where}, which is not followed", "give the final URL", code)
        try:
            text = response.read().decode("utf-8", "replace")
        except ExportError:
            text = "(an endless error page)"
        said = self._said(_error_text(text))
        message = f"{url}: HTTP {code}: {said}"
        if code in _RETRIED:
            hint = "see the server's log" if code != 429 else "ask for less at a time, or raise the server's limit"
            raise TurnedAwayError(message, hint, after=_seconds(response.headers.get("retry-after")))
        name = self._endpoint.api_key_env or DEFAULT_KEY
        hints = {
            401: f"put the key into the environment variable {name}" + (", it holds a wrong one" if self._key else ""),
            403: f"the key in the environment variable {name} may not do this",
            404: "see that the URL ends where the interface begins, mostly /v1, and that the model's name is right",
        }
        raise RefusedError(message, hints.get(code), code)

    def _value(self, text: str, url: str) -> Any:
        """`text` as JSON, NaN refused, the key taken out."""
        try:
            return json.loads(self.scrubbed(text), parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise StepError(f"{url}: not JSON: {self._said(text)}", _WRONG_SERVER) from error

    def _wrong_kind(self, response: "httpx2.Response", url: str, kind: str) -> NoReturn:
        text = response.read().decode("utf-8", "replace")
        said = self._said(_error_text(text))
        message = f"{url}: {kind or 'no content type'}, expected a stream of events (text/event-stream): {said}"
        raise StepError(message, _WRONG_SERVER)

    def _said(self, text: str) -> str:
        """The beginning of what a server or a library said, on one line, without the key."""
        line = "".join(letter if letter.isprintable() else " " for letter in self.scrubbed(text))
        line = " ".join(line.split())
        return line if len(line) <= _KEPT else f"{line[:_KEPT]}…"


_WRONG_SERVER = "see that the URL is that of an OpenAI-compatible server, and not of a proxy or a web page before it"


def _bounded(lib: Any, stream: Any, url: str, most: int, until: float, endpoint: Endpoint) -> Any:
    """The stream with an end: `most` bytes, `until` by the monotonic clock."""

    class Bounded(lib.SyncByteStream):  # type: ignore[misc]  # the library is loaded when it is needed
        def __iter__(self) -> Iterator[bytes]:
            count = 0
            for chunk in stream:
                count += len(chunk)
                if count > most:
                    message = f"{url}: an answer of more than {most:,} bytes"
                    raise StepError(message, "see that the server honours max_tokens, or raise max_answer_bytes")
                if time.monotonic() > until:
                    message = f"{url}: no complete answer within {endpoint.total_timeout:g} s"
                    raise StepError(message, "the server is too slow, or never ends; total_timeout gives it more")
                yield chunk

        def close(self) -> None:
            stream.close()

    return Bounded()


def _error_text(text: str) -> str:
    """The message in an error's body: OpenAI's form, FastAPI's, or the text itself."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    for key in ("error", "message", "detail"):
        while isinstance(value, dict) and key in value:
            value = value[key]
    return value if isinstance(value, str) else json.dumps(value)


def _seconds(header: str | None) -> float | None:
    """A Retry-After in seconds; one that is a date or nonsense counts as none."""
    try:
        value = float(header or "")
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
