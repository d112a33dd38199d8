"""A headless Chromium driven through its DevTools protocol over a pipe: pages, keys, what they print to the console."""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import fetch_chromium

_PATIENCE = 60.0
_READ, _WRITE = 3, 4  # the file descriptors that --remote-debugging-pipe means
_FLAGS = (
    "--no-sandbox",  # the pages are our own, and a container's root has no other way
    "--remote-debugging-pipe",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--hide-scrollbars",
    "--font-render-hinting=none",
)
_FOUND_FLAGS = ("--headless", "--disable-gpu")
# How the fetched one is built to run: one process, and its own software renderer.
_FETCHED_FLAGS = (
    "--headless=shell",
    "--no-zygote",
    "--single-process",
    "--in-process-gpu",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
)


class Chromium:
    """One browser process; a context manager."""

    def __init__(self) -> None:
        program = fetch_chromium.find()
        if program is None or not program.is_file():
            raise FileNotFoundError("no Chromium is there for this test: run python tests/fetch_chromium.py")
        flags = _FETCHED_FLAGS if _is_fetched(program) else _FOUND_FLAGS
        self._folder = tempfile.mkdtemp(prefix="chromium-")
        ours_in, theirs_out = map(_high, os.pipe())
        theirs_in, ours_out = map(_high, os.pipe())
        self._in, self._out = ours_in, ours_out
        self._process = os.posix_spawn(
            program,
            [str(program), *_FLAGS, *flags, f"--user-data-dir={self._folder}", "about:blank"],
            _environment(program),
            file_actions=[
                (os.POSIX_SPAWN_DUP2, theirs_in, _READ),
                (os.POSIX_SPAWN_DUP2, theirs_out, _WRITE),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._rest, self._number = b"", 0
        self._pages: dict[str, Page] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        os.close(self._out)
        os.close(self._in)
        os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        shutil.rmtree(self._folder, ignore_errors=True)

    def open(self, place: Path | str, *, width: int = 1280, height: int = 900, dark: bool = False) -> "Page":
        """The page in a file or at a URL, loaded."""
        target = self.ask("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.ask("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = Page(self, session, target)
        self._pages[session] = page
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.ask(f"{domain}.enable")
        page.size(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.ask("Emulation.setEmulatedMedia", {"features": [scheme]})
        page.ask("Page.navigate", {"url": place if isinstance(place, str) else place.resolve().as_uri()})
        self._until(lambda: page.loaded, "the page is loaded")
        return page

    def ask(self, method: str, parameters: Mapping[str, Any] | None = None, session: str | None = None) -> Any:
        """One command and its answer."""
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": dict(parameters or {})}
        data = json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        answer: dict[str, Any] = {}
        self._until(
            lambda: bool(answer), method, lambda each: answer.update(each) if each.get("id") == number else None
        )
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _until(self, done: Callable[[], bool], what: str, take: Callable[[dict[str, Any]], None] | None = None) -> None:
        end = time.monotonic() + _PATIENCE
        while not done():
            message, mark, rest = self._rest.partition(b"\0")
            if mark:
                self._rest = rest
                value = json.loads(message)
                if take is not None:
                    take(value)
                if value.get("sessionId") in self._pages and "method" in value:
                    self._pages[value["sessionId"]].hear(value["method"], value["params"])
                continue
            if not select.select([self._in], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError(f"Chromium: {what}: nothing in {_PATIENCE:g} s")
            data = os.read(self._in, 1 << 20)
            if not data:
                raise ConnectionError(f"Chromium ended before: {what}")
            self._rest += data


class Page:
    """One tab: `printed` is what the console shows, errors of the page among it; `requests` what it asked for."""

    def __init__(self, browser: Chromium, session: str, target: str) -> None:
        self._browser, self._session, self._target = browser, session, target
        self.loaded = False
        self.printed: list[str] = []
        self.requests: list[str] = []

    def ask(self, method: str, parameters: Mapping[str, Any] | None = None) -> Any:
        """One command to this page."""
        return self._browser.ask(method, parameters, self._session)

    def hear(self, method: str, found: Mapping[str, Any]) -> None:
        """Take one event."""
        if method == "Page.loadEventFired":
            self.loaded = True
        elif method == "Runtime.consoleAPICalled":
            self.printed.append(f"{found['type']}: {[each.get('value') for each in found['args']]}")
        elif method == "Runtime.exceptionThrown":
            self.printed.append(str(found["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.printed.append(f"{found['entry']['level']}: {found['entry']['text']}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(found["request"]["url"])

    def value(self, script: str) -> Any:
        """The JSON value of an expression in the page."""
        found = self.ask("Runtime.evaluate", {"expression": script, "returnByValue": True, "awaitPromise": True})
        if "exceptionDetails" in found:
            raise RuntimeError(f"{script}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def until(self, script: str, patience: float = 30.0) -> Any:
        """The value of an expression in the page once it is true."""
        end = time.monotonic() + patience
        while not (found := self.value(script)):
            if time.monotonic() > end:
                raise TimeoutError(f"{script}: not in {patience:g} s")
            self.value("new Promise(done => setTimeout(done, 50))")
        return found

    def size(self, width: int, height: int) -> None:
        """Set the window's inner size."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.ask("Emulation.setDeviceMetricsOverride", size)

    def press(self, key: str, code: int) -> None:
        """Press a key, such as Tab (9) or Enter (13)."""
        text = {"text": "\r"} if key == "Enter" else {}
        event = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.ask("Input.dispatchKeyEvent", {"type": "keyDown", **event, **text})
        self.ask("Input.dispatchKeyEvent", {"type": "keyUp", **event})

    def hover(self, selector: str) -> None:
        """Move the mouse onto the middle of an element."""
        x, y = self._middle(selector)
        self.ask("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": y})

    def click(self, selector: str) -> None:
        """Click in the middle of an element."""
        x, y = self._middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            where = {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1}
            self.ask("Input.dispatchMouseEvent", where)

    def _middle(self, selector: str) -> list[float]:
        found: list[float] = self.value(
            f"(() => {{ const node = document.querySelector({json.dumps(selector)});"
            "node.scrollIntoView({block: 'center', behavior: 'instant'}); const box = node.getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        return found

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """Save a screenshot as PNG."""
        found = self.ask("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": whole})
        path.write_bytes(base64.b64decode(found["data"]))

    def paper(self) -> bytes:
        """The page as a printed PDF, A4."""
        found = self.ask("Page.printToPDF", {"paperWidth": 8.27, "paperHeight": 11.69, "printBackground": False})
        return base64.b64decode(found["data"])

    def close(self) -> None:
        """Close the tab."""
        self._browser.ask("Target.closeTarget", {"targetId": self._target})


def _high(handle: int) -> int:
    """The descriptor above those that the browser expects, so that neither is in the other's way."""
    moved = fcntl.fcntl(handle, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(handle)
    return moved


def _is_fetched(program: Path) -> bool:
    return (program.parent / "fonts.conf").is_file()


def _environment(program: Path) -> dict[str, str]:
    """The fetched browser brings libraries and fonts with it; another has its own."""
    if not _is_fetched(program):
        return dict(os.environ)
    libraries = os.pathsep.join(filter(None, [str(program.parent / "lib"), os.environ.get("LD_LIBRARY_PATH")]))
    return os.environ | {"LD_LIBRARY_PATH": libraries, "FONTCONFIG_PATH": str(program.parent)}
