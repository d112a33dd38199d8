"""The page of `lf-export try` in a real browser: choose, send, read, stop; nothing fetched, a silent console."""

import gc
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Chromium, Page
from models import tiny_model
from scripted import Scripted

from lf_export.errors import StepError
from lf_export.functions.dialects import dialect_for
from lf_export.trial import Trial, serve
from lf_export.trial.examples import shipped_examples

# Gradio leaves event loops open; they are collected here, so that no other test is blamed for them.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
HOSTILE = "<script>window.broken=1</script><img src=x onerror='window.broken=2'>${window.broken=3}{{window.broken=4}}"
_OVER = "!e.dataset.old && !e.ariaBusy && !e.innerText.includes('Waiting for')"
DONE = f"[...document.querySelectorAll('.answer')].every(e => {_OVER})"


class Server:
    """The page with scripted artifacts, in a thread."""

    def __init__(self) -> None:
        self.left, self.right = Scripted("small", ["x"]), Scripted("merged", ["x"])
        self.url = ""
        self._began = threading.Event()
        trial = Trial([self.left, self.right], dialect_for("llama-functions"))  # type: ignore[list-item]
        self._thread = threading.Thread(target=serve, args=(trial, "127.0.0.1", 0), kwargs={"ready": self._ready})
        self._thread.daemon = True  # it has no signals of its own in a thread: it ends with the tests
        self._thread.start()
        assert self._began.wait(60)

    def _ready(self, url: str) -> None:
        self.url = url
        self._began.set()

    def answers(self, left: str | StepError, right: str | StepError) -> None:
        """What each answers from now on."""
        self.left.answers, self.right.answers = [left], [right]
        self.left.gate = None


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    yield Server()
    gc.collect()


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium() as running:
        yield running


@pytest.fixture
def page(browser: Chromium, server: Server) -> Iterator[Page]:
    opened = browser.open(server.url)
    opened.until("!!document.querySelector('#send')")
    yield opened
    assert opened.printed == []
    assert [url for url in opened.requests if not url.startswith((server.url, "data:", "blob:"))] == []
    opened.close()


def write(page: Page, field: str, text: str) -> None:
    page.value(
        f"(() => {{ const e = document.querySelector('#{field} textarea'); e.value = {json.dumps(text)};"
        "e.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )


def answer(page: Page, place: int) -> str:
    return str(page.value(f"document.querySelector('#answer-{place} .answer').innerText"))


def send(page: Page) -> None:
    page.value("document.querySelectorAll('.answer').forEach(e => { e.dataset.old = 1; })")
    page.click("#send")
    page.until(DONE)


def test_an_example_is_chosen_and_sent_and_both_answers_are_judged_side_by_side(page: Page, server: Server) -> None:
    example = next(each for each in shipped_examples() if each.label.startswith("one of several"))
    call = json.loads(example.reference)["function_call"]
    wrong = {"function_call": {"name": call["name"], "arguments": {"no_such": HOSTILE}}}
    server.answers(example.reference, json.dumps(wrong))
    page.click("#example input")
    page.until("document.querySelectorAll('[role=option]').length > 20")
    option = f"[...document.querySelectorAll('[role=option]')].find(e => e.ariaLabel === {json.dumps(example.label)})"
    page.value(f"{option}.id = 'wanted'")
    page.click("#wanted")
    shown = json.dumps(example.message)
    page.until(f"document.querySelector('#message textarea').value === {shown}")
    assert json.loads(page.value("document.querySelector('#functions textarea').value")) == json.loads(
        example.functions
    )
    page.value("document.querySelector('#reference details').open = true")
    assert example.reference in page.value("document.querySelector('#reference').innerText")
    send(page)
    left, right = answer(page, 0), answer(page, 1)
    assert "A valid call" in left
    assert f"Call 1: {call['name']} ✓" in left
    assert left.count("✓ fits") == len(call["arguments"])
    assert "A call that its function would refuse" in right
    assert "✕ no_such is not one of the function's" in right
    assert "is required and not given" in right
    for text in (left, right):
        assert "Time to first token\n250 ms" in text
        assert "Tokens per second\n8.0" in text
    assert server.left.asked[-1] == server.right.asked[-1]
    boxes = [page.value(f"document.querySelector('#answer-{at}').getBoundingClientRect().toJSON()") for at in (0, 1)]
    assert boxes[0]["top"] == boxes[1]["top"]
    assert boxes[0]["right"] <= boxes[1]["left"]


def test_the_switch_holds_calls_to_the_grammar_and_is_off_at_first(page: Page, server: Server) -> None:
    server.answers("{broken", "{broken")
    server.left.held, server.right.guided = '{"function_call":{"name":"x","arguments":{}}}', ""
    write(page, "functions", '[{"name": "x"}]')
    send(page)
    for at in (0, 1):
        assert "An attempt at a call that cannot be read" in answer(page, at)
        assert "grammar" not in answer(page, at)
    page.click("#way label:last-of-type")
    send(page)
    assert "A valid call" in answer(page, 0)
    assert "calls are held to the functions' grammar by the script" in answer(page, 0)
    assert "No answer" in answer(page, 1)
    assert "cannot hold an answer to a grammar" in answer(page, 1)
    server.right.guided = "the script"


def test_a_hostile_answer_is_text(page: Page, server: Server) -> None:
    server.answers(HOSTILE, StepError(HOSTILE))
    send(page)
    assert HOSTILE in answer(page, 0)
    assert HOSTILE in answer(page, 1)
    assert "No answer" in answer(page, 1)
    assert page.value("window.broken") is None
    assert page.value("document.querySelectorAll('.answer img, .answer script').length") == 0


def test_what_cannot_be_asked_is_said_on_the_page_and_never_as_a_traceback(page: Page, server: Server) -> None:
    asked = len(server.left.asked)
    problem = "document.querySelector('#problem').innerText"
    write(page, "functions", '[\n {"name": "x",}\n]')
    page.click("#send")
    page.until(f"{problem}.includes('functions, line 2, column 15: not JSON')")
    write(page, "functions", '[{"name": "x", "parameters": {"type": "string"}}]')
    page.click("#send")
    page.until(f"{problem}.includes('expected a JSON Schema of type object')")
    write(page, "functions", "")
    write(page, "message", "  ")
    page.click("#send")
    page.until(f"{problem}.includes('the message is empty')")
    assert "Traceback" not in page.value("document.body.innerText")
    assert len(server.left.asked) == asked
    server.answers("Fine.", "Fine.")
    write(page, "message", "And now?")
    send(page)
    assert page.value(problem).strip() == ""
    assert "An answer in words, no call" in answer(page, 0)


def test_an_answer_grows_and_stop_ends_it_where_it_is(page: Page, server: Server) -> None:
    server.answers("abcdefghij" * 10, "never asked")
    gate = server.left.gate = threading.Event()
    asked = len(server.right.asked)
    page.click("#send")
    page.until("(document.querySelector('#answer-0 pre') || {}).textContent === 'abc'")
    assert "Writing" in answer(page, 0)
    page.click("#stop")
    page.value("new Promise(done => setTimeout(done, 300))")  # the click has arrived when the next token comes
    gate.set()
    page.until("document.querySelector('#answer-1').innerText.includes('Stopped')")
    assert "Stopped" in answer(page, 0)
    assert "abcdefgh" not in answer(page, 0)
    assert len(server.right.asked) == asked


def test_a_tab_that_is_closed_half_way_leaves_the_artifact_to_the_next(browser: Chromium, server: Server) -> None:
    server.answers("abcdefghij", "fine")
    gate = server.left.gate = threading.Event()
    first = browser.open(server.url)
    first.until("!!document.querySelector('#send')")
    first.click("#send")
    first.until("(document.querySelector('#answer-0 pre') || {}).textContent === 'abc'")
    first.close()
    gate.set()
    second = browser.open(server.url)
    second.until("!!document.querySelector('#send')")
    send(second)
    assert "abcdefghij" in answer(second, 0)
    second.close()


@pytest.mark.parametrize(("width", "dark"), [(360, False), (768, True)])
def test_every_field_has_a_name_and_a_narrow_window_needs_no_scrolling_sideways(
    browser: Chromium, server: Server, width: int, dark: bool
) -> None:
    server.answers("x" * 400, json.dumps({"function_call": {"name": "y" * 200, "arguments": {"z": "w" * 300}}}))
    opened = browser.open(server.url, width=width, dark=dark)
    opened.until("!!document.querySelector('#send')")
    send(opened)
    unnamed = "[...document.querySelectorAll('input, textarea, button')].filter(e => e.offsetParent && !(e.labels && "
    unnamed += "e.labels.length) && !e.ariaLabel && !e.textContent.trim()).map(e => e.outerHTML)"
    assert opened.value(unnamed) == []
    assert opened.value("document.documentElement.scrollWidth") == width
    assert opened.value("document.querySelectorAll('h1').length") == 1
    opened.close()


def test_the_command_serves_two_artifacts_until_it_is_interrupted(browser: Chromium, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "tiny", max_position_embeddings=512)
    command = [sys.executable, "-m", "lf_export", "try", str(model), "--against", str(model), "--port", "0"]
    environment = os.environ | {"LF_EXPORT_THREADS": "1", "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            found = re.match(r"(http://127\.0\.0\.1:\d+/) \(Ctrl-C ends it\)", process.stdout.readline())
            assert found is not None, process.communicate()[1]
            page = browser.open(found[1])
            page.until("!!document.querySelector('#send')")
            send(page)  # a prompt with functions is longer than 512 tokens of this tokenizer
            assert "the prompt takes" in answer(page, 0)
            assert "context of 512" in answer(page, 0)
            write(page, "functions", "")
            write(page, "message", "What is it?")
            send(page)
            left, right = answer(page, 0), answer(page, 1)
            assert "tiny (1)" in left
            assert "tiny (2)" in right
            assert page.value("document.querySelector('#answer-0 pre').textContent") == page.value(
                "document.querySelector('#answer-1 pre').textContent"
            )
            assert page.printed == []
            page.close()
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="utf-8").split()
            assert len(children) == 2
        finally:
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert not any(Path(f"/proc/{child}").exists() for child in children)
