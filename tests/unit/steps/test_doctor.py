"""What works is said, what does not comes with a reason and a command, and nothing that is tried ends the doctor."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from lf_export.cli import app
from lf_export.errors import InputError, MissingError
from lf_export.steps import doctor
from lf_export.steps.doctor import PARTS, Part, check_works, chosen_parts, doctor_text, examine

WORKS = Part("core", "sound", "facts['version'] = '1.2'", None, "everything")
ABSENT = Part("extra", "absent", "import no_such_package_at_all", "absent", "nothing")
TOLD = Part(
    "format",
    "told",
    "from lf_export.errors import MissingError\nraise MissingError('half of it is missing', 'apt-get install rest')",
    "told",
    "something",
)
KILLED = Part("runtime", "killed", "import os\nos.kill(os.getpid(), 4)", "killed", "something")
BROKEN = Part("runtime", "broken", "raise ValueError('not a processor for this')", "broken", "something")


def by_name(facts: dict[str, object]) -> dict[str, dict[str, object]]:
    parts = facts["parts"]
    assert isinstance(parts, list)
    return {part["name"]: part for part in parts}


def test_a_part_that_works_tells_its_version_whatever_else_is_printed() -> None:
    noisy = Part("core", "noisy", "print('hello')\nfacts['version'] = '1.2'", None, "everything")
    found = by_name(examine([noisy]))["noisy"]
    assert found["works"] is True
    assert found["version"] == "1.2"
    assert found["problem"] is None
    assert found["remedy"] is None


def test_a_package_that_is_not_there_comes_with_the_command_that_installs_it() -> None:
    found = by_name(examine([ABSENT]))["absent"]
    assert found["works"] is False
    assert found["problem"] == "No module named 'no_such_package_at_all'"
    assert found["remedy"] == "pip install 'lf-export[absent]'"


def test_what_the_product_itself_would_say_is_said() -> None:
    found = by_name(examine([TOLD]))["told"]
    assert (found["problem"], found["remedy"]) == ("half of it is missing", "apt-get install rest")


def test_a_part_that_ends_its_process_is_a_finding_and_the_others_are_still_told() -> None:
    found = by_name(examine([KILLED, BROKEN, WORKS]))
    assert str(found["killed"]["problem"]).startswith("ended with signal 4")
    assert found["broken"]["problem"] == "ended with status 1: ValueError: not a processor for this"
    assert found["sound"]["works"] is True


def test_a_part_that_does_not_return_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_SECONDS", 0.2)
    slow = Part("extra", "slow", "import time\ntime.sleep(60)", "slow", "nothing")
    assert by_name(examine([slow]))["slow"]["problem"] == "did not start within 0.2 s"


def test_the_core_must_work_and_the_rest_where_it_was_named() -> None:
    facts = examine([WORKS, ABSENT, TOLD])
    check_works(facts, core_alone=True)
    with pytest.raises(MissingError) as caught:
        check_works(facts, core_alone=False)
    assert "extra absent does not work: No module named 'no_such_package_at_all'" in caught.value.message
    assert caught.value.hint == "pip install 'lf-export[absent]'; apt-get install rest"
    with pytest.raises(MissingError, match="core absent"):
        check_works(examine([Part("core", "absent", ABSENT.code, None, "everything")]), core_alone=True)


def test_parts_are_chosen_by_name_or_by_sort_and_name_with_the_core() -> None:
    assert chosen_parts([]) == list(PARTS)
    assert [(part.sort, part.name) for part in chosen_parts(["onnx"])][2:] == [("format", "onnx"), ("runtime", "onnx")]
    assert [(part.sort, part.name) for part in chosen_parts(["runtime:onnx"])] == [
        ("core", "torch"), ("core", "transformers"), ("runtime", "onnx"),
    ]  # fmt: skip
    with pytest.raises(InputError, match="no part is named gguff, expected one of: awq,"):
        chosen_parts(["gguff"])


def test_the_text_says_what_is_missing_and_how_to_get_it(tmp_path: Path) -> None:
    facts = examine([WORKS, ABSENT], tmp_path)
    text = doctor_text(facts | {"versions": ["torch 1.0, expected >=2.8"]})
    lines = text.splitlines()
    assert any(line.split() == ["ok", "sound", "everything", "(1.2)"] for line in lines)
    at = next(index for index, line in enumerate(lines) if "MISSING" in line)
    assert lines[at + 1].strip() == "No module named 'no_such_package_at_all'"
    assert lines[at + 2].strip() == "→ pip install 'lf-export[absent]'"
    assert lines[-1].strip() == "torch 1.0, expected >=2.8"


def test_every_extra_of_the_package_is_the_remedy_of_some_part() -> None:
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    section = text.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    extras = {line.partition(" = ")[0] for line in section.splitlines() if " = [" in line} - {"onnx-gpu"}
    assert {part.extra for part in PARTS if part.extra} == extras


def test_here_everything_works_and_the_command_says_so() -> None:
    ended = CliRunner().invoke(app, ["doctor", "--require", "gguf", "--require", "sign", "--json"])
    assert ended.exit_code == 0, ended.output
    facts = json.loads(ended.output)
    assert [part["name"] for part in facts["parts"] if part["works"]] == ["torch", "transformers", "gguf", "sign"]
    assert facts["machine"]["cores"] >= 1
    assert facts["disk_free_bytes"] > 0
    assert facts["versions"] == []
