"""The report as JUnit XML, which build servers show: a suite for each artifact, a case for each endpoint."""

import re
from collections.abc import Iterator
from xml.etree import ElementTree as ET

from lf_export.report.model import ArtifactReport, EndpointResult, ItemResult, Report

# What XML 1.0 cannot hold at all, escaped or not; ids and answers may hold anything.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_junit(report: Report) -> str:
    """JUnit XML of the verdicts.

    An enforced FAIL or INCONCLUSIVE is a `failure` whose `type` is the verdict, as either stops a release; of an
    advisory artifact it is `skipped`, with the reason. A broken hard floor is a case of its own.
    """
    root = ET.Element("testsuites", name=_text(f"lf-export bench: {report.name}"))
    for artifact in report.artifacts:
        cases = list(_cases(artifact))
        suite = ET.SubElement(root, "testsuite", name=_text(artifact.name), timestamp=report.created)
        counts = {tag: sum(case.find(tag) is not None for case in cases) for tag in ("failure", "skipped")}
        suite.set("tests", str(len(cases)))
        suite.set("failures", str(counts["failure"]))
        suite.set("skipped", str(counts["skipped"]))
        suite.set("errors", "0")
        suite.extend(cases)
    for name in ("tests", "failures", "skipped", "errors"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in root)))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _cases(artifact: ArtifactReport) -> Iterator[ET.Element]:
    if artifact.gate is None:
        return
    yield _case(
        artifact, "hard floors", "FAIL" if artifact.gate.problems else "PASS", "\n".join(artifact.gate.problems)
    )
    for endpoint in artifact.gate.endpoints:
        case = _case(artifact, endpoint.name, endpoint.verdict, endpoint.reason)
        lost = _lost(artifact, endpoint)
        if lost:
            ET.SubElement(case, "system-out").text = _text(lost)
        yield case
    for limit in artifact.gate.limits:
        yield _case(artifact, f"limit on {limit.name}", limit.verdict, limit.reason)


def _case(artifact: ArtifactReport, name: str, verdict: str, reason: str) -> ET.Element:
    case = ET.Element("testcase", classname=_text(artifact.name), name=name)
    if verdict == "PASS":
        return case
    if artifact.enforced:
        ET.SubElement(case, "failure", type=verdict, message=_text(reason))
    else:
        ET.SubElement(case, "skipped", message=_text(f"advisory {verdict}: {reason}"))
    return case


def _lost(artifact: ArtifactReport, endpoint: EndpointResult) -> str:
    """The items that are wrong, for whoever opens the case."""
    suite = "calls" if endpoint.name == "strict_call" else "no_call"
    wrong = [item for item in artifact.own_items if item.suite == suite and not item.correct]
    head = f"{endpoint.n} items, {endpoint.lost} lost and {endpoint.gained} gained against the baseline"
    lines = [f"{item.id} ({item.category}): {_what(item)}" for item in wrong]
    return "\n".join([head, "wrong answers:", *lines]) if wrong else head


def _what(item: ItemResult) -> str:
    """The kinds of error, each with its places."""
    places: dict[str, list[str]] = {}
    for issue in item.issues:
        places.setdefault(issue.kind, []).extend([issue.path] if issue.path else [])
    named = [f"{kind} at {', '.join(places[kind])}" if places.get(kind) else kind for kind in item.errors]
    return ", ".join(named) or item.kind


def _text(text: str) -> str:
    return _FORBIDDEN.sub("\ufffd", text)
