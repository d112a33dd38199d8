"""Serve the page on this machine, until it is told to end."""

import contextlib
import ipaddress
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from lf_export.errors import InputError
from lf_export.trial.page import CSS, gradio, page, theme
from lf_export.trial.trial import Trial

# Nothing but this page's own: no font, script or picture from elsewhere, whatever a library's page asks for.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'self'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
_LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")
_GRACE_SECONDS = 2  # for connections that are open when the end comes


def application(trial: Trial, *, loopback: bool = True) -> Any:
    """The page as an ASGI application; with `loopback` it answers to this machine's own names alone.

    Raises:
        MissingError: Gradio is not installed.
    """
    gr = gradio()
    from fastapi import FastAPI  # noqa: PLC0415 - come with gradio

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        app,
        page(trial),
        path="",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        show_error=False,
        theme=theme(),
        css=CSS,
    )

    return _Guard(app, loopback=loopback)


class _Guard:
    """Around an ASGI application: the policy on every answer, and strangers' names refused."""

    def __init__(self, app: Any, *, loopback: bool) -> None:
        self._app, self._loopback = app, loopback

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        named = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        # A page elsewhere could give this machine a name of its own domain, and read along.
        if self._loopback and _host(named) not in _LOCAL_NAMES:
            body = b"this page answers to its own machine alone\n"
            await send({"type": "http.response.start", "status": 421, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": body})
            return

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = message | {"headers": [*message["headers"], *_HEADERS]}
            await send(message)

        await self._app(scope, receive, guarded)


def serve(trial: Trial, host: str, port: int, *, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; the trial's children are ended on every way out.

    Args:
        trial: what is tried.
        host: the address to listen at.
        port: the port; 0 for one that is free.
        ready: told the page's address when it can be opened.

    Raises:
        InputError: the address cannot be listened at.
        MissingError: Gradio is not installed.
    """
    try:
        app = application(trial, loopback=is_loopback(host))
        import uvicorn  # noqa: PLC0415 - comes with gradio

        with _listening(host, port) as listener:
            at = f"[{host}]" if ":" in host else host
            settings = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=_GRACE_SECONDS)
            ready(f"http://{at}:{listener.getsockname()[1]}/")
            with _ended_by_signals():
                uvicorn.Server(settings).run(sockets=[listener])
    finally:
        trial.close()


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGINT and SIGTERM end the block, and nothing else: the server raises them again when it has ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise InputError(f"{host}:{port}: cannot be listened at: {error.strerror}", "choose another --port") from error


def _host(header: str) -> str:
    return header.rpartition(":")[0] if header.rpartition(":")[2].isdigit() else header
