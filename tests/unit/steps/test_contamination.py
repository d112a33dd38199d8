"""A suite that an artifact was calibrated on is refused."""

from pathlib import Path
from typing import Any

import pytest
from conversations import FUNCTIONS, user

from lf_export.calibration.suites import EvalItem
from lf_export.errors import InputError
from lf_export.functions.answers import prose
from lf_export.functions.spec import FunctionSpec, schema_hash
from lf_export.provenance import manifest, write_manifest
from lf_export.steps.contamination import calibrated_on, check_contamination

ITEM = EvalItem("a", "", "", (user("x"),), FUNCTIONS, prose("No."))


def artifact(folder: Path, *functions: FunctionSpec, **facts: Any) -> Path:
    folder.mkdir()
    made = facts or {"calibration": {"digest": "x", "schemas": [schema_hash(spec) for spec in functions]}}
    write_manifest(folder, manifest("gptq", **made))
    return folder


def test_a_function_of_the_calibration_is_refused_by_name(tmp_path: Path) -> None:
    path = artifact(tmp_path / "q4", FUNCTIONS[0])
    with pytest.raises(InputError) as caught:
        check_contamination({"q4": path}, {"calls": [ITEM]})
    assert caught.value.message == "q4: was calibrated on the function 'get_weather', which the suite calls shows"
    assert caught.value.status == 3
    assert "--allow-contaminated" in (caught.value.hint or "")


def test_the_same_function_with_another_description_is_the_same(tmp_path: Path) -> None:
    reworded = FunctionSpec("getWeather", "Tells the weather", FUNCTIONS[0].parameters)
    with pytest.raises(InputError, match="get_weather"):
        check_contamination({"q4": artifact(tmp_path / "q4", reworded)}, {"calls": [ITEM]})


@pytest.mark.parametrize("allowed", [["get_weather"], ["calls"]])
def test_what_is_allowed_by_name_is_noted(tmp_path: Path, allowed: list[str]) -> None:
    path = artifact(tmp_path / "q4", FUNCTIONS[0])
    notes = check_contamination({"q4": path}, {"calls": [ITEM]}, allowed)
    assert notes == {"q4": ["was calibrated on 1 functions of the suite calls, as allowed"]}


def test_an_allowance_covers_what_it_names_alone(tmp_path: Path) -> None:
    path = artifact(tmp_path / "q4", *FUNCTIONS)
    with pytest.raises(InputError, match="'sendEmail'") as caught:
        check_contamination({"q4": path}, {"calls": [ITEM]}, ["get_weather"])
    assert "get_weather" not in caught.value.message
    with pytest.raises(InputError, match="suite no-call"):
        check_contamination({"q4": path}, {"calls": [ITEM], "no-call": [ITEM]}, ["calls"])


def test_an_artifact_that_was_not_calibrated_has_nothing_to_compare(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    paths = {"bare": bare, "merged": artifact(tmp_path / "m", source="x"), "file": tmp_path / "m" / "x.gguf"}
    assert all(calibrated_on(path) == frozenset() for path in paths.values())
    assert check_contamination(paths, {"calls": [ITEM]}) == {}


def test_many_functions_are_counted(tmp_path: Path) -> None:
    specs = [FunctionSpec(f"f{at}", "", {"type": "object"}) for at in range(9)]
    many = EvalItem("a", "", "", (user("x"),), tuple(specs), prose("No."))
    with pytest.raises(InputError, match="and on 4 more of the suite calls"):
        check_contamination({"q4": artifact(tmp_path / "q4", *specs)}, {"calls": [many]})
