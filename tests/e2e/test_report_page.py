"""The report's page in a real browser: nothing is asked for, nothing is complained about, everything works by key."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import Chromium, Page
from flipped_report import HOSTILE, flipped_report

from lf_export.report import write_html, write_report

ITEMS = 24
SHOWN = "[...document.querySelectorAll('#list > .item')].filter(e => !e.hidden && e.offsetParent)"
FLIPS = "[...document.querySelectorAll('.flip')].filter(e => !e.hidden && !e.closest('.item').hidden)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium() as running:
        yield running


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_html(flipped_report(ITEMS), tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture
def page(browser: Chromium, written: Path) -> Iterator[Page]:
    opened = browser.open(written)
    yield opened
    opened.close()


def choose(page: Page, name: str, value: str) -> None:
    page.value(
        f"(() => {{ const e = document.getElementById('{name}'); e.value = '{value}';"
        "e.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )


def flips() -> list[tuple[str, str, str, str]]:
    """(artifact, id, direction, kind of error) of every flip, from the report itself."""
    report = flipped_report(ITEMS)
    before = {item.id: item for item in report.baseline.raw.items}
    return [
        (artifact.name, item.id, "lost" if before[item.id].correct else "gained", wrong.errors[0])
        for artifact in report.artifacts
        for item in artifact.raw.items
        if item.correct != before[item.id].correct
        for wrong in [item if before[item.id].correct else before[item.id]]
    ]


def test_the_console_is_silent_and_nothing_is_fetched(page: Page, written: Path) -> None:
    assert page.printed == []
    assert page.requests == [written.as_uri()]
    assert page.value("document.compatMode") == "CSS1Compat"


def test_the_policy_forbids_scripts_that_are_not_the_pages_own(page: Page) -> None:
    page.value(
        "(() => { const s = document.createElement('script'); s.textContent = 'window.broken = 1';"
        "document.body.append(s);"
        "document.body.insertAdjacentHTML('beforeend', '<b onclick=\"window.broken=2\" id=b>b</b>');"
        "document.getElementById('b').click(); })()"
    )
    assert page.value("window.broken") is None
    assert any("Content Security Policy" in line for line in page.printed)


def test_every_chart_is_drawn_with_marks_that_say_their_figures(page: Page) -> None:
    drawn: list[dict[str, Any]] = page.value(
        "[...document.querySelectorAll('figure')].map(f => ({caption: f.querySelector('figcaption').textContent,"
        "width: f.querySelector('svg').getBoundingClientRect().width, section: f.closest('section').id,"
        "marks: [...f.querySelectorAll('.mark')].map(m => m.getAttribute('aria-label')),"
        "sizes: [...f.querySelectorAll('.mark')].map(m => m.getBoundingClientRect().width)}))"
    )
    counts = {(each["section"], each["caption"]): len(each["marks"]) for each in drawn}
    assert counts == {
        ("verdict", "Loss with its bounds"): 3,
        ("trade-offs", "Size against divergence on call tokens"): 4,
        ("trade-offs", "Size against exact calls"): 4,
        ("trade-offs", "Speed against divergence on call tokens"): 4,
        ("trade-offs", "Speed against exact calls"): 4,
        ("errors", "q8_0"): 4,
        ("errors", "gptq-4bit"): 2,
        ("errors", "q2_k"): 4,
        ("speed", "Time to first token"): 12,
        ("speed", "Time per output token"): 12,
        ("speed", "Time over the baseline's, one prompt at a time"): 9,
        ("speed", "Time over the baseline's, batches"): 24,
        ("layers", "gptq-4bit"): 4,
        ("layers", "q2_k"): 4,
    }
    assert all(each["width"] > 200 and min(each["sizes"]) > 3 for each in drawn)
    (size,) = [each for each in drawn if each["caption"] == "Size against divergence on call tokens"]
    assert size["marks"][0].startswith("merged: baseline\nQ8_0 in torch, 540 MB")
    assert "KL 0.0324" in size["marks"][3]


def test_colours_are_the_pages_own_in_light_and_in_dark(browser: Chromium, written: Path) -> None:
    found = []
    for dark in (False, True):
        opened = browser.open(written, dark=dark)
        found.append(
            opened.value(
                "[getComputedStyle(document.body).backgroundColor,"
                "getComputedStyle(document.querySelector('#trade-offs .mark')).fill,"
                "getComputedStyle(document.querySelector('.drawing text')).fill]"
            )
        )
        opened.close()
    light, dark_ones = found
    assert light == ["rgb(255, 255, 255)", "rgb(89, 99, 110)", light[2]]
    assert dark_ones[0] == "rgb(21, 24, 28)"
    assert all(one != other for one, other in zip(light, dark_ones, strict=True))


def test_a_mark_says_its_figures_to_the_mouse_and_to_the_keyboard(page: Page) -> None:
    page.hover("#trade-offs .mark")
    assert page.value("document.getElementById('tip').hidden") is False
    assert page.value("document.getElementById('tip').textContent").startswith("merged: baseline")
    page.press("Escape", 27)
    assert page.value("document.getElementById('tip').hidden") is True
    page.value("document.querySelectorAll('#trade-offs .mark')[1].focus()")
    assert page.value("document.getElementById('tip').textContent").startswith("q8_0: PASS")


def test_the_first_key_goes_to_the_verdict_and_focus_can_be_seen(page: Page) -> None:
    page.press("Tab", 9)
    assert page.value("document.activeElement.className") == "skip"
    assert page.value("document.activeElement.getBoundingClientRect().left") >= 0
    assert page.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press("Enter", 13)
    assert page.value("location.hash") == "#verdict"


def test_headings_and_tables_are_marked_up_for_those_who_hear_the_page(page: Page) -> None:
    assert page.value("document.querySelectorAll('h1').length") == 1
    levels = page.value("[...document.querySelectorAll('h1, h2, h3, h4')].map(h => +h.tagName[1])")
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(levels))
    assert page.value("[...document.querySelectorAll('th')].every(th => th.scope)")
    assert page.value("[...document.querySelectorAll('table')].every(t => t.caption)")
    assert page.value("[...document.querySelectorAll('select, input')].every(e => e.labels.length === 1)")


def test_every_flip_is_there_and_the_filters_choose_among_them(page: Page) -> None:
    every = flips()
    assert page.value(f"{FLIPS}.length") == len(every) > 10
    checks: dict[str, tuple[str, Callable[[tuple[str, str, str, str]], bool]]] = {
        "artifact": ("gptq-4bit", lambda flip: flip[0] == "gptq-4bit"),
        "direction": ("lost", lambda flip: flip[2] == "lost"),
        "error": ("malformed", lambda flip: flip[3] == "malformed"),
        "category": ("nested", lambda flip: int(flip[1][-4:]) % 2 == 1),
        "suite": ("no_call", lambda flip: int(flip[1][-4:]) % 6 == 5),
    }
    for name, (value, fits) in checks.items():
        choose(page, name, value)
        left = [flip for flip in every if fits(flip)]
        assert 0 < len(left) < len(every)
        assert page.value(f"{FLIPS}.length") == len(left), name
        items = len({flip[1] for flip in left})
        assert page.value(f"{SHOWN}.length") == items
        words = f"{len(left)} flip{'s' * (len(left) > 1)} of {items} item{'s' * (items > 1)}"
        assert page.value("document.getElementById('count').textContent") == words
        choose(page, name, "")
    choose(page, "direction", "lost")
    choose(page, "artifact", "q2_k")
    both = [flip for flip in every if flip[2] == "lost" and flip[0] == "q2_k"]
    assert page.value(f"{FLIPS}.map(f => f.closest('.item').querySelector('.id').textContent).sort()") == sorted(
        flip[1] for flip in both
    )
    page.value("document.querySelector('#filters button[type=reset]').click()")
    assert page.value(f"new Promise(done => setTimeout(() => done({FLIPS}.length), 50))") == len(every)


def test_the_text_search_finds_words_of_requests_and_answers_in_any_order(page: Page) -> None:
    choose(page, "search", "SEAT please item-0007")
    assert page.value(f"{SHOWN}.map(e => e.querySelector('.id').textContent)") == ["item-0007"]
    choose(page, "search", "no such words")
    assert page.value(f"{SHOWN}.length") == 0
    assert page.value("document.getElementById('count').textContent") == "0 flips of 0 items"


def test_an_item_shows_both_answers_with_what_differs_marked(page: Page) -> None:
    choose(page, "search", "item-0013")
    page.value(f"{SHOWN}[0].querySelector('summary').focus()")
    page.press("Enter", 13)
    assert page.value(f"{SHOWN}[0].open") is True
    shown = page.value(f"{FLIPS}[0].innerText")
    assert "merged call ✕ wrong" in shown
    assert "✓ right" in shown
    assert page.value(f"{FLIPS}[0].querySelector('del').textContent") == "-14"
    assert page.value(f"{FLIPS}[0].querySelector('ins').textContent") == "13"


def test_ratios_are_drawn_with_what_they_say(page: Page) -> None:
    said = page.value("[...document.querySelectorAll('#speed .mark')].map(e => e.getAttribute('aria-label'))")
    assert "q8_0 · TTFT: 0.70 (0.63 to 0.78) of the baseline's" in said
    assert "q2_k · 512 \u00d7 4, per token: 1.60 (1.44 to 1.79) of the baseline's" in said
    assert page.value("document.querySelectorAll('.behind li').length") == 1


def test_hostile_text_is_shown_and_does_nothing(browser: Chromium, tmp_path: Path) -> None:
    opened = browser.open(write_html(flipped_report(8, text=HOSTILE), tmp_path / "report.html"))
    assert opened.printed == []
    assert opened.value("window.broken") is None
    assert opened.value("document.scripts.length") == 1
    assert opened.value("document.querySelectorAll('img, iframe, object').length") == 0
    for place in (".flip pre", ".turn .text", ".functions pre", ".reasons li", "h1", "title", "#ran dd:last-of-type"):
        text = opened.value(f"document.querySelector('{place}').textContent")
        assert "".join(HOSTILE.split()) in "".join(text.split()), place  # a call's layout breaks lines
    opened.value("document.getElementById('open-all').click()")
    assert opened.value(f"{SHOWN}.every(e => e.open)") is True
    opened.close()


@pytest.mark.parametrize("width", [360, 768])
def test_a_narrow_window_needs_no_scrolling_sideways(browser: Chromium, written: Path, width: int) -> None:
    opened = browser.open(written, width=width)
    opened.value("document.querySelectorAll('details').forEach(e => { e.open = true; })")
    assert opened.value("document.documentElement.scrollWidth") == width
    opened.close()


def test_it_prints_without_filters_and_with_its_tables_open(page: Page) -> None:
    paper = page.paper()
    assert paper.startswith(b"%PDF")
    assert page.value("[...document.querySelectorAll('details.matrix')].every(e => e.open)") is True
    page.ask("Emulation.setEmulatedMedia", {"media": "print"})
    assert page.value("getComputedStyle(document.getElementById('filters')).display") == "none"


def test_report_makes_the_page_again(lf_export: Callable[..., Any], browser: Chromium, tmp_path: Path) -> None:
    write_report(flipped_report(ITEMS), tmp_path / "bench")
    ended = lf_export("report", tmp_path / "bench")
    assert (ended.status, ended.out.strip()) == (0, str(tmp_path / "bench" / "report.html"))
    opened = browser.open(tmp_path / "bench" / "report.html")
    assert opened.value("document.title") == "release : FAIL"
    opened.close()
    other = lf_export("report", tmp_path / "bench" / "report.json", "-o", tmp_path / "other.html", "--json")
    assert other.status == 0
    assert (tmp_path / "other.html").read_bytes() == (tmp_path / "bench" / "report.html").read_bytes()
    assert lf_export("report", tmp_path / "nothing.json").status == 3
