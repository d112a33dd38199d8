import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from lf_export.errors import InputError, StepError
from lf_export.metrics.gate import judge_artifact
from lf_export.metrics.latency import measure
from lf_export.report import (
    CallMetrics,
    Fidelity,
    GateResult,
    Latency,
    NoCallMetrics,
    Report,
    read_report,
    render_table,
    schema_text,
    write_report,
)
from lf_export.stats import PairedCounts

SCHEMA = Path(__file__).parents[3] / "docs" / "reference" / "report.schema.json"


def test_a_report_read_back_is_the_report_that_was_written(report: Report, tmp_path: Path) -> None:
    json_path, markdown_path, _ = write_report(report, tmp_path / "bench")
    assert read_report(json_path) == report
    assert markdown_path.read_text(encoding="utf-8").startswith("# quickstart: PASS\n")
    assert sorted(path.name for path in json_path.parent.iterdir()) == ["junit.xml", "report.json", "report.md"]


def test_the_committed_schema_is_the_models_own() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == schema_text(), "run: make docs"


def test_a_report_from_before_these_fields_still_reads(report: Report, tmp_path: Path) -> None:
    value = json.loads(write_report(report, tmp_path)[0].read_bytes())
    new = {
        "calls": ("by_slice", "arguments", "schema_valid", "schema_errors"),
        "no_call": ("bfcl_like", "by_slice"),
    }
    for part in (value["baseline"], *value["artifacts"]):
        del part["variants"]
        for name, keys in new.items():
            for key in keys:
                del part[name][key]
        for item in part["raw"]["items"]:
            for key in ("issues", "variant", "slices", "arguments_expected", "arguments_right", "schema_valid"):
                del item[key]
    old = tmp_path / "old.json"
    old.write_text(json.dumps(value), encoding="utf-8")
    read = read_report(old)
    assert read.artifacts[0].calls is not None
    assert read.artifacts[0].calls.strict_exact == 129
    assert read.artifacts[0].calls.arguments is None
    assert "exact calls" in render_table(read)


def test_what_is_written_fits_the_schema_and_what_has_more_keys_does_not(report: Report, tmp_path: Path) -> None:
    value = json.loads(write_report(report, tmp_path)[0].read_bytes())
    schema = json.loads(schema_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(value, schema)
    value["artifacts"][0]["speed"] = 3
    with pytest.raises(jsonschema.ValidationError, match="speed"):
        jsonschema.validate(value, schema)


def test_a_report_with_mistakes_is_refused_with_all_of_them(report: Report, tmp_path: Path) -> None:
    value: dict[str, Any] = json.loads(write_report(report, tmp_path)[0].read_bytes())
    value["schema_version"] = 2
    value["artifacts"][1]["speed"] = 3
    path = tmp_path / "other.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_report(path)
    assert "schema_version" in caught.value.message
    assert "artifacts.1.speed" in caught.value.message


def test_a_file_that_is_no_report_or_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    with pytest.raises(InputError, match=r"report\.json: the report cannot be read"):
        read_report(path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"report\.json: report: Invalid JSON"):
        read_report(path)


def test_a_folder_that_cannot_be_written_is_named(report: Report, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file", encoding="utf-8")
    with pytest.raises(StepError, match="taken: the report cannot be written"):
        write_report(report, tmp_path / "taken")


def test_what_is_not_finite_was_not_measured() -> None:
    assert Fidelity(tokens=0, kl_mean=float("nan"), kl_p99=float("inf")) == Fidelity(tokens=0)


def test_counts_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValidationError, match="do not add up to n"):
        NoCallMetrics(n=10, abstained=5, malformed=2, empty=0, called=2)
    with pytest.raises(ValidationError, match="strict_exact is more than n"):
        CallMetrics(n=10, strict_exact=11, bfcl_like=0, name_ok=0)
    with pytest.raises(ValidationError, match="name_ok is more than n"):
        CallMetrics(n=10, strict_exact=1, bfcl_like=1, name_ok=11)


def test_two_artifacts_of_one_name_are_refused(report: Report) -> None:
    value = report.model_dump()
    value["artifacts"][0]["name"] = "merged"
    with pytest.raises(ValidationError, match="share a name: gptq-4bit, merged, merged"):
        Report.model_validate(value)


def test_the_values_of_the_metrics_package_fit_as_they_are() -> None:
    gate = judge_artifact(PairedCounts(0, 0, 0, 0, 0), PairedCounts(100, 90, 1, 2, 7), problems=["token ids differ"])
    taken = GateResult.model_validate(gate)
    assert taken.verdict == "FAIL"
    assert taken.problems == ["token ids differ"]
    assert taken.endpoints[0].loss is None
    assert taken.endpoints[1].lost == 1
    timed = measure([10], [[0.5, 0.6, 0.8]])
    assert timed is not None
    assert Latency.model_validate(timed).ttft.p50 == 0.5
