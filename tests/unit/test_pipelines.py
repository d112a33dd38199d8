"""The example pipelines are YAML, shell that parses, and know every exit status that decides a release."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).resolve().parent.parent.parent / "docs" / "how-to" / "pipelines"
GITHUB, GITLAB = FOLDER / "github-actions.yml", FOLDER / "gitlab-ci.yml"


def _value(path: Path) -> dict[str, Any]:
    value = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(value, dict)
    return value


def _steps(job: str) -> list[dict[str, Any]]:
    return list(_value(GITHUB)["jobs"][job]["steps"])


def _scripts(path: Path) -> Iterator[str]:
    if path == GITHUB:
        for job in _value(path)["jobs"].values():
            yield from (step["run"] for step in job["steps"] if "run" in step)
        return
    for job in _value(path).values():
        for key in ("before_script", "script"):
            yield from job.get(key, []) if isinstance(job, dict) else []


@pytest.mark.parametrize("path", [GITHUB, GITLAB], ids=lambda path: path.stem)
def test_every_script_is_shell(path: Path) -> None:
    scripts = list(_scripts(path))
    assert len(scripts) >= 5
    for script in scripts:
        done = subprocess.run(["bash", "-n", "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", [GITHUB, GITLAB], ids=lambda path: path.stem)
def test_nothing_that_others_write_is_put_into_a_script(path: Path) -> None:
    """An expression of GitHub's in a script would run what a branch is called."""
    assert not [script for script in _scripts(path) if "${{" in script]


def test_a_failed_step_is_started_once_more_and_a_verdict_is_not() -> None:
    for path in (GITHUB, GITLAB):
        (script,) = [each for each in _scripts(path) if "lf-export run release.yaml ||" in each]
        for status, times in ((0, 1), (3, 1), (5, 2), (10, 1), (11, 1)):
            fake = f"lf-export() {{ echo ran >&2; return {status}; }}\nGITHUB_OUTPUT=/dev/null\n"
            fake += 'cd "$(mktemp -d)"\n' + script
            done = subprocess.run(["bash", "-e", "-c", fake], capture_output=True, text=True, check=False)
            assert done.stderr.count("ran") == times
            if path == GITLAB:
                assert done.returncode == status


def test_the_verdict_step_leaves_with_the_gate_s_status() -> None:
    (script,) = [step["run"] for step in _steps("export") if step.get("name") == "Verdict"]
    said = {}
    for status in (0, 3, 10, 11):
        done = subprocess.run(
            ["bash", "-e", "-c", script], env={"STATUS": str(status)}, capture_output=True, text=True, check=False
        )
        assert done.returncode == status
        said[status] = done.stdout
    assert "PASS" in said[0]
    assert "FAIL" in said[10]
    assert "INCONCLUSIVE" in said[11]


def test_only_a_pass_is_signed_and_only_what_was_signed_is_published() -> None:
    jobs = _value(GITHUB)["jobs"]
    assert jobs["sign"]["needs"] == "export"
    assert jobs["sign"]["if"] == "github.ref_type == 'tag' && needs.export.outputs.status == '0'"
    assert jobs["publish"]["needs"] == "sign"
    assert "if" not in jobs["publish"]  # it would run after a sign that was skipped
    assert next(each["with"]["name"] for each in _steps("publish") if "download" in str(each.get("uses"))) == "signed"
    value = _value(GITLAB)
    assert value["sign"]["script"][0] == 'test "$GATE_STATUS" = 0'
    for name in ("publish", "publish-to-the-hub"):
        assert value[name]["needs"] == [{"job": "sign", "artifacts": True}]
    assert value["export"]["allow_failure"] == {"exit_codes": [11]}
    assert value["export"]["artifacts"]["reports"]["dotenv"] == "gate.env"


def test_the_job_with_the_key_runs_no_recipe_and_the_others_have_no_key() -> None:
    for path in (GITHUB, GITLAB):
        jobs = _value(path).get("jobs", _value(path))
        having = {name for name, job in jobs.items() if "SIGNING_KEY" in yaml.safe_dump(job)}
        assert having == {"sign"}
        assert "lf-export run" not in yaml.safe_dump(jobs["sign"])
        publishing = yaml.safe_dump({name: job for name, job in jobs.items() if name.startswith("publish")})
        assert "lf-export run" not in publishing
        assert "--constraint" not in publishing


@pytest.mark.parametrize("path", [GITHUB, GITLAB], ids=lambda path: path.stem)
def test_the_key_is_not_left_behind_and_an_artifact_that_does_not_verify_stops_the_job(
    path: Path, tmp_path: Path
) -> None:
    scripts = [each for each in _scripts(path) if "lf-export sign" in each or "lf-export verify" in each]
    for status in (0, 3):
        fake = f'lf-export() {{ echo "$*"; [ "$1" = sign ] || return {status}; }}\n'
        done = subprocess.run(
            ["bash", "-e", "-c", fake + "\n".join(scripts)],
            env={"SIGNING_KEY": "the key", "TMPDIR": str(tmp_path), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stderr
        assert [line.split()[0] for line in done.stdout.splitlines()] == ["sign", "verify"]
        assert "the key" not in (done.stdout if path == GITHUB else done.stderr)
        assert list(tmp_path.iterdir()) == []


def test_the_report_is_kept_also_where_the_gate_says_no() -> None:
    uploads = [step for step in _steps("export") if str(step.get("uses", "")).startswith("actions/upload-artifact")]
    kept = [step for step in uploads if step["with"]["name"] == "report"]
    assert [step["if"] for step in kept] == ["always()"]
    assert "junit.xml" in kept[0]["with"]["path"]
    assert _value(GITLAB)["export"]["artifacts"]["when"] == "always"
    assert _value(GITLAB)["export"]["artifacts"]["reports"]["junit"].endswith("junit.xml")


def test_jobs_need_jobs_that_are_there() -> None:
    jobs = _value(GITHUB)["jobs"]
    assert {job["needs"] for job in jobs.values() if "needs" in job} <= set(jobs)
    value = _value(GITLAB)
    needed = {need["job"] for job in value.values() if isinstance(job, dict) for need in job.get("needs", [])}
    assert needed <= set(value)
    assert {job["stage"] for job in value.values() if isinstance(job, dict) and "stage" in job} <= set(value["stages"])


def test_secrets_come_from_the_environment() -> None:
    for path in (GITHUB, GITLAB):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"gh[pous]_[A-Za-z0-9]{20}|glpat-|hf_[A-Za-z0-9]{20}", text)
        assert "--password-stdin" in text
