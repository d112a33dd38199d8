"""Build servers read verdicts from JUnit XML: failures stop a release, advice does not."""

from typing import Any
from xml.etree import ElementTree as ET

import pytest

from lf_export.report import Report
from lf_export.report.junit import to_junit


def cases(report: Report) -> dict[str, ET.Element]:
    root = ET.fromstring(to_junit(report))  # noqa: S314 - our own text
    return {f"{case.get('classname')} {case.get('name')}": case for case in root.iter("testcase")}


def changed(report: Report, **changes: Any) -> Report:
    value = report.model_dump()
    value["artifacts"][0].update(changes)
    return Report.model_validate(value)


def test_a_pass_is_a_case_without_children_but_its_wrong_items(report: Report) -> None:
    found = cases(report)
    name = report.artifacts[0].name
    assert set(found) >= {f"{name} hard floors", f"{name} strict_call", f"{name} abstention"}
    case = found[f"{name} strict_call"]
    assert [child.tag for child in case] == ["system-out"]
    assert "c-1 (single): nested at body.title" in (case.findtext("system-out") or "")


def test_a_variant_that_is_wrong_is_not_among_the_lost_items(report: Report) -> None:
    raw = report.artifacts[0].raw.model_dump()
    masked = {**raw["items"][0], "id": "c-1~masked", "variant": "masked"}
    other = changed(report, raw={**raw, "items": [*raw["items"], masked]})
    told = cases(other)[f"{other.artifacts[0].name} strict_call"].findtext("system-out") or ""
    assert "c-1 (single)" in told
    assert "masked" not in told


@pytest.mark.parametrize("verdict", ["FAIL", "INCONCLUSIVE"])
@pytest.mark.parametrize(("enforced", "tag"), [(True, "failure"), (False, "skipped")])
def test_what_stops_a_release_is_a_failure_and_advice_is_skipped(
    report: Report, verdict: str, enforced: bool, tag: str
) -> None:
    endpoint = report.artifacts[0].gate.endpoints[0].model_dump()  # type: ignore[union-attr]
    gate = {"verdict": verdict, "endpoints": [{**endpoint, "verdict": verdict, "reason": "too <few> items & more"}]}
    other = changed(report, gate=gate, enforced=enforced)
    child = cases(other)[f"{other.artifacts[0].name} strict_call"].find(tag)
    assert child is not None
    assert "too <few> items & more" in child.get("message", "")
    suite = ET.fromstring(to_junit(other)).find("testsuite")  # noqa: S314 - our own text
    assert suite is not None
    assert {name: suite.get(name) for name in ("tests", "failures", "skipped")} == {
        "tests": "2",
        "failures": str(int(enforced)),
        "skipped": str(int(not enforced)),
    }


def test_a_broken_floor_fails_by_its_own_words(report: Report) -> None:
    other = changed(
        report, gate={"verdict": "FAIL", "endpoints": [], "problems": ["logits are not finite at item c-1"]}
    )
    failure = cases(other)[f"{other.artifacts[0].name} hard floors"].find("failure")
    assert failure is not None
    assert failure.get("message") == "logits are not finite at item c-1"


def test_characters_that_xml_cannot_hold_do_not_break_the_file(report: Report) -> None:
    other = changed(report, name="a\x00b\x1b\ud800<script>")
    assert ET.fromstring(to_junit(other)).find("testsuite").get("name") == "a\ufffdb\ufffd\ufffd<script>"  # type: ignore[union-attr]  # noqa: S314
