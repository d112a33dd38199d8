"""Answers as HTML: whatever a model writes stays text, and every state has its words."""

import json
from html.parser import HTMLParser

import pytest
from scripted import Scripted

from lf_export.functions.dialects import dialect_for
from lf_export.trial import Trial
from lf_export.trial.judged import Judged
from lf_export.trial.markup import answer_html, problem_html, reference_html
from lf_export.trial.trial import Shown

HOSTILE = '<script>window.broken=1</script><img src=x onerror="window.broken=2">\'"&${1+1}{{x}}'


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def read(html: str) -> _Tags:
    tags = _Tags()
    tags.feed(html)
    return tags


def test_hostile_answers_names_and_errors_are_text() -> None:
    call = json.dumps({"function_call": {"name": HOSTILE, "arguments": {HOSTILE: HOSTILE}}})
    trial = Trial([Scripted(HOSTILE, [call])], dialect_for("llama-functions"))  # type: ignore[list-item]
    *_, (last,) = trial.ask("", "Hi", 2000)
    page = read(answer_html(last, HOSTILE))
    assert not {"script", "img"} & set(page.tags)
    assert page.text.count("window.broken=1") >= 5  # name, note, text, call, argument
    for html in (problem_html(HOSTILE), reference_html(HOSTILE), answer_html(Shown("a", "failed", problem=HOSTILE))):
        assert not {"script", "img"} & set(read(html).tags)
        assert HOSTILE in read(html).text


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (Shown("a"), "Waiting for its turn"),
        (Shown("a", "reading"), "Reading the prompt"),
        (Shown("a", "writing", "x", 1), "Writing"),
        (Shown("a", "stopped"), "Stopped"),
        (Shown("a", "failed", problem="broken"), "No answer"),
        (Shown("a", "done", "x", 1, True, judged=Judged("prose", ())), "An answer in words, no call"),
        (Shown("a", "done", "", 1, True, judged=Judged("empty", ())), "An empty answer"),
        (Shown("a", "done", "{", 8, judged=Judged("malformed", ())), "cannot be read; cut after 8 tokens"),
    ],
)
def test_every_state_has_its_words(shown: Shown, words: str) -> None:
    assert words in read(answer_html(shown)).text


def test_times_are_shown_where_they_are_known() -> None:
    text = read(answer_html(Shown("a", "done", "x", 9, ttft=0.25, tpot=0.0125))).text
    assert "Time to first token250 ms" in text
    assert "Time per token12.5 ms" in text
    assert "Tokens per second80.0" in text
    assert read(answer_html(Shown("a"))).text.count("-") >= 4
