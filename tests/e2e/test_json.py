"""Every command that prints a result prints it with `--json` as JSON, and nothing else, on standard output."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from lf_export.cli import app
from lf_export.steps import doctor

Run = Callable[..., Any]

# What prints no result of its own, or JSON alone.
WITHOUT = {
    "completion": "prints a script for a shell",
    "recipe schema": "prints JSON as it is",
    "try": "serves a page until it is stopped",
}


def _commands(command: click.Command = app, path: str = "") -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    for name, inner in command.commands.items():
        yield from _commands(inner, f"{path} {name}".strip())


def _refused(name: str) -> Any:
    raise AssertionError(f"{name} is not JSON")


def _cases(release: Any, project: Path, scratch: Path) -> dict[str, tuple[list[Any], int]]:
    """A command line for each command, without `--json`, and its exit status."""
    artifact, bench = release.folder / "q8", release.folder / "bench"
    key = scratch / "release.key"
    private = ec.generate_private_key(ec.SECP256R1())
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    data = ["--calls", project / "calls.jsonl", "--chat", project / "chat.jsonl"]
    return {
        "merge": ([project / "base", project / "adapter", "-o", scratch / "merged"], 0),
        "calibrate": ([scratch / "merged", *data, "--num-samples", "12", "-o", scratch / "set"], 0),
        "quantize": (
            [scratch / "merged", "--format=gguf:Q8_0", "--calibration", scratch / "set", "-o", scratch / "q8"],
            0,
        ),
        "bench": (["--plan", "--margin", "0.03"], 0),  # a real one: test_commands.py
        "compare": ([bench, bench], 11),
        "report": ([bench, "-o", scratch / "report.html"], 0),
        "run": ([release.recipe], 11),
        "recipe check": ([release.recipe], 0),
        "recipe show": ([release.recipe], 0),
        "recipe list": ([], 0),
        "recipe copy": (["quickstart", scratch / "copied"], 0),
        "inspect": ([artifact], 0),
        "verify": ([release.folder], 0),
        "bom": ([scratch / "q8"], 0),
        "sign": ([scratch / "q8", "--private-key", key], 0),
        "doctor": ([], 0),  # parts are tried in test_doctor.py
    }


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one command's output is the next one's input."""
    return tmp_path_factory.mktemp("json")


def test_every_command_is_told_here(release: Any, project: Path, tmp_path: Path) -> None:
    commands = dict(_commands())
    assert set(_cases(release, project, tmp_path)) | set(WITHOUT) == set(commands)
    having = {name for name, command in commands.items() if any(each.name == "as_json" for each in command.params)}
    assert having == set(commands) - set(WITHOUT)


def test_json_is_all_that_is_printed(
    lf_export: Run, release: Any, project: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_tried", lambda part: doctor.Finding(part.sort, part.name, True, part.serves))
    for name, (arguments, status) in _cases(release, project, scratch).items():
        ended = lf_export(*name.split(), *arguments, "--json")
        assert ended.status == status, (name, ended.err)
        assert json.loads(ended.out, parse_constant=_refused), name
        assert ended.out.endswith("\n"), name


def test_an_error_leaves_nothing_on_standard_output(lf_export: Run, tmp_path: Path) -> None:
    for arguments in (["inspect", tmp_path / "none"], ["run", tmp_path / "none.yaml"], ["compare", tmp_path, tmp_path]):
        ended = lf_export(*arguments, "--json")
        assert (ended.status, ended.out) == (3, "")
        assert ended.err.startswith("error: ")


def test_the_schema_is_json_as_it_is(lf_export: Run) -> None:
    assert json.loads(lf_export("recipe", "schema").out)["type"] == "object"
