"""Two runs beside each other: the same items, the same gate, every flip by name."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lf_export.cli import app
from lf_export.errors import InputError
from lf_export.metrics.gate import Verdict
from lf_export.report.files import to_json
from lf_export.report.model import Report
from lf_export.steps.compare import compare_reports

Make = Callable[..., Report]
SUITE = {"path": "shipped:suites/calls.jsonl", "items": 100, "of_items": 100, "sha256": "ab" * 32}


def item(suite: str, number: int, *, correct: bool) -> dict[str, Any]:
    return {
        "suite": suite,
        "id": f"{suite}-{number}",
        "category": "single",
        "kind": "call",
        "correct": correct,
        "name_ok": True,
        "bfcl_like": correct,
        "errors": [] if correct else ["wrong_value"],
        "answer": f"answer {number}",
    }


def report(wrong: Sequence[int] = (), *, items: int = 100, names: Sequence[str] = ("q8",), **changes: Any) -> Report:
    """Every artifact is wrong on the call items `wrong`, the merged model on none."""

    def artifact(name: str, wrong: Sequence[int]) -> dict[str, Any]:
        calls = [item("calls", number, correct=number not in wrong) for number in range(items)]
        abstained = [item("no_call", number, correct=True) for number in range(items)]
        return {"name": name, "format": "gguf", "raw": {"items": calls + abstained}}

    machine = {"system": "Linux", "processor": "p", "architecture": "x86_64", "cores": 2, "memory_bytes": 1}
    fields: dict[str, Any] = {
        "name": "run",
        "created": "2026-11-22T18:30:00+00:00",
        "verdict": "PASS",
        "gate": {"margin": 0.05},
        "suites": {"calls": SUITE, "no_call": SUITE},
        "dialect": "chat-template",
        "machine": machine,
        "versions": {"torch": "2.13.0"},
        "baseline": artifact("merged", ()),
        "artifacts": [artifact(name, wrong) for name in names],
    }
    return Report.model_validate(fields | changes)


def test_nothing_flipped_is_a_pass_with_an_upper_bound() -> None:
    found = compare_reports(report([3]), report([3]))
    assert found.verdict is Verdict.PASS
    assert [(pair.before, pair.after) for pair in found.pairs] == [("merged", "merged"), ("q8", "q8")]
    strict = found.pairs[1].gate.endpoints[0]
    assert (strict.n, strict.lost, strict.gained) == (100, 0, 0)
    assert 0 < strict.upper < 0.05


def test_a_run_that_lost_a_fifth_fails_and_names_every_flip() -> None:
    found = compare_reports(report([0]), report(range(1, 21)))
    assert found.verdict is Verdict.FAIL
    pair = found.pairs[1]
    assert [flip.id for flip in pair.lost] == [f"calls-{number}" for number in range(1, 21)]
    assert [flip.id for flip in pair.gained] == ["calls-0"]
    assert (pair.lost[0].errors, pair.lost[0].after) == (("wrong_value",), "answer 1")
    assert "q8: lost calls-1 (single): wrong_value" in found.text()
    assert found.text().endswith("verdict: FAIL")


def test_variants_of_the_suites_are_no_part_of_the_gate() -> None:
    before, after = report(), report()
    value = after.model_dump()
    items = value["artifacts"][0]["raw"]["items"]
    items += [{**item("calls", 500 + at, correct=False), "variant": "masked"} for at in range(50)]
    found = compare_reports(before, Report.model_validate(value))
    assert all(pair.items == 200 for pair in found.pairs)
    assert found.verdict == Verdict.PASS


def test_few_items_are_inconclusive() -> None:
    assert compare_reports(report(items=20), report([1], items=20)).verdict is Verdict.INCONCLUSIVE


def test_artifacts_of_other_names_are_paired_by_hand() -> None:
    found = compare_reports(report(names=["old"]), report(names=["new", "more"]), pairs={"old": "new"})
    assert [(pair.before, pair.after) for pair in found.pairs] == [("old", "new")]
    with pytest.raises(InputError, match="the later report has no 'nil', it has merged, new, more"):
        compare_reports(report(names=["old"]), report(names=["new", "more"]), pairs={"old": "nil"})


def test_only_items_of_both_runs_count_and_the_rest_is_told() -> None:
    found = compare_reports(report(items=100), report(items=90))
    assert found.pairs[0].gate.endpoints[0].n == 90
    assert "merged: 180 of 200 items are in both" in found.notes


def test_a_change_of_version_is_told() -> None:
    found = compare_reports(report(), report(versions={"torch": "2.14.0", "new": "1"}))
    assert found.notes == ("versions changed: new – to 1, torch 2.13.0 to 2.14.0",)  # noqa: RUF001 - a dash


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"suites": {"calls": SUITE | {"sha256": "cd" * 32}, "no_call": SUITE}}, "the suites calls differ"),
        ({"suites": {"calls": SUITE}}, "the suites no_call differ"),
        ({"dialect": "llama-functions"}, "the dialects differ"),
    ],
)
def test_runs_on_other_items_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        compare_reports(report(), report(**changes))


def test_the_command_reads_folders_and_files_and_leaves_with_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "before").mkdir()
    (tmp_path / "before" / "report.json").write_text(to_json(report()), encoding="utf-8")
    (tmp_path / "after.json").write_text(to_json(report(range(20))), encoding="utf-8")
    paths = [str(tmp_path / "before"), str(tmp_path / "after.json")]
    assert app.main(["compare", *paths, "--json"], standalone_mode=False) == 10
    value = json.loads(capsys.readouterr().out)
    assert value["verdict"] == "FAIL"
    assert len(value["pairs"][1]["lost"]) == 20
    assert app.main(["compare", paths[0], paths[0]], standalone_mode=False) == 0
    with pytest.raises(InputError, match="cannot be read"):
        app.main(["compare", paths[0], str(tmp_path / "nowhere")], standalone_mode=False)
