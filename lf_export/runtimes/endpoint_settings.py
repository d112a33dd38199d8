"""Which server is asked and how: settings of the `endpoint` runtime, without its key."""

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from lf_export.errors import InputError, MissingError

Api = Literal["auto", "completions", "chat"]
DEFAULT_KEY = "OPENAI_API_KEY"
PREFIX = "endpoint:"

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server.

    Attributes:
        url: where its interface begins, such as http://127.0.0.1:8080/v1; no credentials in it.
        model: the model to ask for; the only one that the server lists, where it is None.
        api: `completions` takes our own prompt, `chat` messages and tools; `auto`: completions where offered.
        api_key_env: the environment variable that holds the key. None: OPENAI_API_KEY where it is set, over https or
            to this machine alone.
        concurrency: how many requests are under way together, one measurement each.
        requests: requests of each such measurement.
        ttft_limit: seconds to the first token within which a request counts as good.
        tpot_limit: seconds for each token after it, likewise.
        connect_timeout: seconds for a connection.
        read_timeout: seconds without a byte.
        total_timeout: seconds for a whole answer.
        max_answer_bytes: the longest answer, as it comes over the wire.
        retries: how often a request is repeated that was turned away (429, 5xx) or cut off.
    """

    url: str
    model: str | None = None
    api: Api = "auto"
    api_key_env: str | None = None
    concurrency: tuple[int, ...] = (1,)
    requests: int = 16
    ttft_limit: float = 1.0
    tpot_limit: float = 0.1
    connect_timeout: float = 5.0
    read_timeout: float = 60.0
    total_timeout: float = 300.0
    max_answer_bytes: int = 8 << 20
    retries: int = 4

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", checked_url(self.url))

    @property
    def root(self) -> str:
        """The server itself, where `/tokenize` is: the URL without `/v1`."""
        return self.url.removesuffix("/v1")


def checked_url(url: str) -> str:
    """The URL without a slash at its end.

    Raises:
        InputError: not http or https, no host, a wrong port, or credentials, a query or a fragment in it. What stands
            before an `@` is not repeated in the message.
    """
    shown = re.sub(r"//[^/]*@", "//…@", url)
    if any(letter.isspace() or not letter.isprintable() for letter in url):
        raise InputError(f"{shown!r}: white space in a URL, expected one such as http://127.0.0.1:8080/v1")
    parts, port = _split(url, shown)
    if parts.username is not None or parts.password is not None:
        raise InputError(
            f"{shown}: credentials in a URL end up in logs and reports",
            f"put the key into an environment variable: {DEFAULT_KEY}, or one that api_key_env names",
        )
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise InputError(f"{shown}: expected a URL such as http://127.0.0.1:8080/v1, with http or https and a host")
    if parts.query or parts.fragment:
        raise InputError(f"{parts.scheme}://{parts.netloc}{parts.path}: expected no query (?…), no fragment (#…)")
    return url.rstrip("/")


def _split(url: str, shown: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:  # a port above 65535, a broken IPv6 address
        raise InputError(f"{shown}: not a URL, expected one such as http://127.0.0.1:8080/v1") from error
    return parts, port


def name_of(url: str) -> str:
    """A name for the server in tables: its host and port."""
    parts = urlsplit(checked_url(url))
    return _NOT_IN_A_NAME.sub("-", parts.netloc).strip("-.")[:64] or "endpoint"


def api_key(endpoint: Endpoint, environment: Mapping[str, str] = os.environ) -> str | None:
    """The key from the environment, or None where the server is asked without one.

    Raises:
        MissingError: the variable that the settings name is not set.
        InputError: what it holds cannot be a key.
    """
    name = endpoint.api_key_env or DEFAULT_KEY
    key = environment.get(name, "").strip()
    if not key:
        if endpoint.api_key_env:
            raise MissingError(f"{endpoint.url}: the environment variable {name} is not set", f"export {name}=…")
        return None
    if endpoint.api_key_env is None and not _is_private(endpoint.url):
        return None  # the user's key for another service does not go over the network in the clear
    if not key.isascii() or not key.isprintable() or " " in key:
        raise InputError(f"the environment variable {name} holds letters that an HTTP header cannot, expected a key")
    return key


def _is_private(url: str) -> bool:
    """Whether nobody on the way can read what is sent: https, or this machine itself."""
    parts = urlsplit(url)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False
