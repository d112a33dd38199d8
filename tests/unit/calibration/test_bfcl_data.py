"""The leaderboard's data as a suite, from a folder or a wheel."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from lf_export.calibration.bfcl import read_bfcl
from lf_export.calibration.suites import NO_CALL_TEXT, load_suite, read_suite
from lf_export.errors import InputError, MissingError
from lf_export.functions.answers import Call, calling, prose


def function(name: str, kind: str, items: str | None = None, language: str = "") -> dict[str, Any]:
    schema: dict[str, Any] = {"type": kind, "description": "The x."} | ({"items": {"type": items}} if items else {})
    parameters = {"type": "dict", "properties": {"x": schema}, "required": ["x"]}
    return {"name": name, "description": f"Does {language}.", "parameters": parameters}


def question(name: str, *functions: dict[str, Any]) -> dict[str, Any]:
    return {"id": name, "question": [[{"role": "user", "content": "Do it."}]], "function": list(functions)}


QUESTIONS = {
    "simple_python": [question("p0", function("a.b", "float")), question("p1", function("f", "tuple", "integer"))],
    "simple_java": [question("j0", function("J.f", "ArrayList", "String"))],
    "multiple": [question("m0", function("f", "dict"), function("g", "integer"))],
    "live_multiple": [question("live", function("f", "dict"))],
    "irrelevance": [question("i0", function("f", "any"))],
}
ANSWERS = {
    "simple_python": [{"p0": {"a.b": {"x": [1.5, 2]}}}, {"p1": {"f": {"x": [[1, 2]]}}}],
    "simple_java": [{"j0": {"J.f": {"x": [["a", "b"]]}}}],
    "multiple": [{"m0": {"g": {"x": [3]}}}],
}


def written(root: Path, questions: Any = None, answers: Any = None) -> Path:
    for folder, files in (("", questions or QUESTIONS), ("possible_answer/", answers or ANSWERS)):
        for category, rows in files.items():
            path = root / f"{folder}BFCL_v4_{category}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            listed = rows
            if folder:
                listed = [{"id": name, "ground_truth": [truth]} for row in rows for name, truth in row.items()]
            path.write_text("".join(json.dumps(row) + "\n" for row in listed), encoding="utf-8")
    return root


def wheel(path: Path, folder: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bfcl_eval/__init__.py", "raise SystemExit")
        for file in sorted(folder.rglob("*.json")):
            archive.write(file, f"bfcl_eval/data/{file.relative_to(folder).as_posix()}")
    return path


def test_the_wheel_and_the_folder_give_the_same_suite(tmp_path: Path) -> None:
    folder = written(tmp_path / "bfcl_eval" / "data")
    packed = wheel(tmp_path / "bfcl.whl", folder)
    suites = [read_suite(f"bfcl:{path}") for path in (packed, folder, tmp_path, tmp_path / "bfcl_eval")]
    assert all(suite == suites[0] for suite in suites)
    assert [item.id for item in suites[0].items] == ["p0", "p1", "j0", "m0", "i0"]
    assert {item.category for item in suites[0].items} == {"simple_python", "simple_java", "multiple", "irrelevance"}


def test_an_item_has_a_reference_and_all_values_that_are_right(tmp_path: Path) -> None:
    items = {item.id: item for item in load_suite(f"bfcl:{written(tmp_path)}")}
    assert items["p0"].expected == calling(Call("a.b", {"x": 1.5}))
    assert items["p0"].possible[0].arguments == {"x": [1.5, 2]}
    assert items["j0"].expected.calls[0].arguments == {"x": 'new ArrayList<String>(Arrays.asList("a", "b"))'}
    assert items["m0"].expected.calls[0].name == "g"
    assert items["i0"].expected == prose(NO_CALL_TEXT)


def test_functions_are_shown_as_json_schema_and_java_as_source_text(tmp_path: Path) -> None:
    items = {item.id: item for item in load_suite(f"bfcl:{written(tmp_path)}")}
    assert items["p0"].functions[0].parameters["properties"]["x"]["type"] == "number"
    assert items["p1"].functions[0].parameters["properties"]["x"] == {
        "type": "array", "description": "The x.", "items": {"type": "integer"}
    }  # fmt: skip
    assert items["m0"].functions[0].parameters["properties"]["x"]["type"] == "object"
    assert items["j0"].functions[0].parameters["properties"]["x"] == {
        "type": "string", "description": "The x. (Java source text of type ArrayList of String)"
    }  # fmt: skip


def test_other_bytes_have_another_digest(tmp_path: Path) -> None:
    first = read_bfcl(written(tmp_path / "a"))[1]
    changed = {**ANSWERS, "multiple": [{"m0": {"g": {"x": [4]}}}]}
    assert read_bfcl(written(tmp_path / "b", answers=changed))[1] != first


def test_what_is_no_such_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no such file or folder"):
        read_bfcl(tmp_path / "none.whl")
    with pytest.raises(InputError, match="no questions of BFCL"):
        read_bfcl(tmp_path)
    (tmp_path / "x.whl").write_text("no zip")
    with pytest.raises(InputError, match="expected a wheel or a folder"):
        read_bfcl(tmp_path / "x.whl")


def test_rows_that_do_not_read_are_all_named(tmp_path: Path) -> None:
    broken = {
        "simple_python": [{"question": []}, question("p1", function("f", "integer")), question("p2", {"name": "f"})],
        "multiple": [question("m0", function("f", "integer"))],
    }
    with pytest.raises(InputError) as caught:
        read_bfcl(written(tmp_path, broken, {"multiple": [{"m0": {"g": {"x": [1]}}}]}))
    lines = [line.rpartition("BFCL_v4_")[2] for line in caught.value.message.splitlines()]
    assert lines == [
        "simple_python.json:1: not a question: expected an object with an id",
        "simple_python.json: p1: no possible answer has this id",
        "simple_python.json: p2: KeyError: 'parameters'",
        "multiple.json: m0: the answer calls 'g', which is not among the functions",
    ]
