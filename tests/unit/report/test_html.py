"""The page is one file that needs nothing else, and shows what others wrote as text."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from flipped_report import HOSTILE, PLACE, flipped_report

from lf_export.report import Report, to_html, write_html
from lf_export.report.html.differences import compared, laid_out
from lf_export.report.html.page import MOST_BYTES
from lf_export.report.model import ArtifactReport, ControlResult, LimitResult


class Seen(HTMLParser):
    """What a parser finds: tags, attributes, and the text outside scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take one."""
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        """Take one."""
        self.text += data

    def handle_comment(self, data: str) -> None:
        """Take one."""
        self.tags.append(f"comment {data}")


@pytest.fixture(scope="module")
def page() -> str:
    return to_html(flipped_report())


def test_what_a_model_or_a_user_wrote_is_text(page: str) -> None:
    plain, hostile = Seen(page), Seen(to_html(flipped_report(text=HOSTILE)))
    assert hostile.tags.count("script") == 1
    assert set(hostile.tags) == set(plain.tags)
    assert not [name for name, _ in hostile.attributes if name.startswith("on")]
    assert hostile.text.count("</script><script>window.broken = 1</script><!-- <img src=x onerror=") > 24
    assert "49 " not in hostile.text.partition("{{")[2][:40]


def test_the_page_asks_for_nothing_outside_itself(page: str) -> None:
    links = [value for name, value in Seen(page).attributes if name in {"src", "href", "action", "xlink:href", "data"}]
    assert {link for link in links if link and not link.startswith("#")} == {"data:,"}
    assert set(re.findall(r"https?://[^\"' ]*", page)) <= {"http://www.w3.org/2000/svg"}
    assert "url(" not in page
    assert "@import" not in page


def test_nothing_says_where_on_the_machine_it_was_made(page: str) -> None:
    assert "q2_k/model.gguf: does not load" in Seen(page).text
    assert PLACE not in page
    assert "somebody" not in page


def test_the_verdict_is_said_in_words_before_all_else(page: str) -> None:
    text = Seen(page).text
    assert re.search(r"FAIL\s+1 of 2 enforced artifacts pass against merged\. A loss under 5\.0 pp", text)
    assert "<title>release : FAIL</title>" in page


def test_a_report_of_many_flips_stays_under_five_megabytes_and_says_what_is_missing() -> None:
    report = flipped_report(items=1600, text="a long answer " * 25)
    page = to_html(report)
    assert 2_000_000 < len(page.encode()) < MOST_BYTES == 5_000_000
    found = re.search(r"<strong>(\d+) more items are in report\.json alone", page)
    assert found is not None
    shown = page.count('<details class="item"')
    flipped = {
        item.id
        for artifact in report.artifacts
        for before, item in zip(report.baseline.raw.items, artifact.raw.items, strict=True)
        if before.correct != item.correct
    }
    assert shown + int(found[1]) == len(flipped)


def test_a_report_without_texts_items_or_measurements_is_a_page_too(report: Report) -> None:
    bare = {"name": "q4", "format": "gguf", "enforced": True, "gate": {"verdict": "FAIL", "problems": ["bad magic"]}}
    value = report.model_dump() | {"artifacts": [bare], "verdict": "FAIL"}
    value["baseline"] = {"name": "merged", "format": "hf"}
    page = to_html(Report.model_validate(value))
    assert "bad magic" in page
    assert "No item flipped" in page
    assert 'id="speed"' not in page


def test_the_same_report_gives_the_same_page(page: str) -> None:
    assert to_html(flipped_report()) == page


def test_characters_that_html_cannot_hold_are_replaced(tmp_path: Path) -> None:
    path = write_html(flipped_report(items=6, text="a\x00b\x1bc"), tmp_path / "new" / "report.html")
    assert "a\ufffdb\ufffdc" in path.read_text(encoding="utf-8")
    assert [each.name for each in path.parent.iterdir()] == ["report.html"]


def test_an_answer_is_laid_out_without_mending_it() -> None:
    doubled = '{"name":"f","arguments":{"a":1.0,"a":"{x, y}","l":[1,2]}}'
    assert laid_out(doubled) == (
        '{\n  "name": "f",\n  "arguments": {\n    "a": 1.0,\n    "a": "{x, y}",\n    "l": [1, 2]\n  }\n}'
    )
    assert laid_out('{"a":{},"b":"{ }"}') == '{\n  "a": {},\n  "b": "{ }"\n}'
    assert laid_out('{"a": {"b') == '{\n  "a": {\n    "b'
    assert laid_out("Which {city} do you mean?") == "Which {city} do you mean?"


def test_what_differs_is_marked_in_both_answers_and_nothing_else() -> None:
    before, after = compared('"city": "Rome", "days": 3', '"city": "Roma", "days": 3')
    assert [piece.text for piece in before if piece.changed] == ["Rome"]
    assert [piece.text for piece in after if piece.changed] == ["Roma"]
    space = compared('"retention"', '" retention"')[1]
    assert [piece.text for piece in space if piece.changed] == [" "]


def test_answers_of_different_nature_are_not_marked_all_over() -> None:
    pieces = compared('{"name": "f"}', "I cannot do that here, since no function serves it.")
    assert not any(piece.changed for side in pieces for piece in side)


def test_variants_are_no_part_of_the_flips_and_errors(page: str) -> None:
    plain = flipped_report()

    def varied(part: ArtifactReport, *, right: bool) -> ArtifactReport:
        more = [
            item.model_copy(update={"id": f"{item.id}~masked", "variant": "masked", "correct": right})
            for item in part.raw.items
        ]
        return part.model_copy(update={"raw": part.raw.model_copy(update={"items": [*part.raw.items, *more]})})

    report = plain.model_copy(
        update={
            "baseline": varied(plain.baseline, right=True),
            "artifacts": [varied(part, right=False) for part in plain.artifacts],
        }
    )
    assert to_html(report) == page


def test_limits_and_controls_say_why_nothing_passes() -> None:
    plain = flipped_report()
    first, second, *rest = plain.artifacts
    assert first.gate is not None
    limit = LimitResult(
        name="disk",
        limit=0.25,
        ratio=0.5,
        lower=0.5,
        upper=0.5,
        verdict="FAIL",
        reason="disk is 0.50 times the baseline's",
    )
    limited = first.model_copy(update={"gate": first.gate.model_copy(update={"limits": [limit]})})
    control = second.model_copy(update={"control": ControlResult(expected="FAIL", met=False)})
    text = Seen(to_html(plain.model_copy(update={"artifacts": [limited, control, *rest]}))).text
    assert "limit FAIL: disk is 0.50 times the baseline's" in text
    assert f"Nothing passes: {second.name} did not come out as known." in text
    assert "control, expected is FAIL, which did NOT come out" in text
    assert "Nothing passes" not in Seen(to_html(plain)).text
