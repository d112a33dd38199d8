"""A tiny model, an adapter, small suites and a recipe: the whole way in seconds."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from models import tiny_adapter, tiny_model

import lf_export as package
from lf_export import cli
from lf_export.report import Report


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status and what it printed."""

    status: int
    out: str
    err: str


@pytest.fixture
def lf_export(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run the command line in this process, as `lf-export` does; what libraries and child processes print counts."""

    def run(*arguments: str | Path) -> Ended:
        monkeypatch.setattr("sys.argv", ["lf-export", *map(str, arguments)])
        monkeypatch.setenv("LF_EXPORT_THREADS", "1")
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capfd.readouterr()
        return Ended(int(str(ended.value.code)), printed.out, printed.err)

    return run


def _tool(name: str, **properties: str) -> dict[str, Any]:
    schema = {key: {"type": kind} for key, kind in properties.items()}
    parameters = {"type": "object", "properties": schema, "required": list(schema)}
    return {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}


def _rows(prefix: str, names: Sequence[str], *, calls: bool) -> list[dict[str, Any]]:
    rows = []
    for block, name in enumerate(names):
        tools = [_tool(name, city="string"), _tool(f"{name}_b", count="integer")]
        for at in range(2):
            arguments = json.dumps({"city": f"{prefix}{at}"})
            call = {"type": "function", "function": {"name": name, "arguments": arguments}}
            answer = {"content": None, "tool_calls": [call]} if calls else {"content": "I am fine."}
            rows.append(
                {
                    "id": f"{prefix}-{block}-{at}",
                    "category": "single" if at else "nested",
                    "block": f"{prefix}{block}",
                    "messages": [
                        {"role": "user", "content": f"{name} {prefix}{at}?"},
                        {"role": "assistant", **answer},
                    ],
                    "tools": tools,
                }
            )
    return rows


def _chat(prefix: str, count: int) -> list[dict[str, Any]]:
    return [
        {
            "id": f"{prefix}-{at}",
            "category": "explain",
            "messages": [
                {"role": "user", "content": f"{prefix} {at}?"},
                {"role": "assistant", "content": f"It is {prefix} number {at}, and it is sunny and warm."},
            ],
        }
        for at in range(count)
    ]


def _jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@dataclass(frozen=True)
class Release:
    """A run that was done from Python: its recipe, its folder, its report."""

    recipe: Path
    folder: Path
    report: Report


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with base/, adapter/, data and recipe.yaml; tests copy nothing of it and change nothing in it."""
    folder = tmp_path_factory.mktemp("project")
    base = tiny_model(folder / "base", max_position_embeddings=2048, shard_size="200KB")
    tiny_adapter(folder / "adapter", base)
    (folder / "adapter" / "LICENSE").write_text("the adapter's licence\n", encoding="utf-8")
    _jsonl(folder / "calls.jsonl", _rows("a", [f"fetch_{at}" for at in range(6)], calls=True))
    _jsonl(folder / "chat.jsonl", _chat("b", 10))
    _jsonl(folder / "suite-calls.jsonl", _rows("c", ["get_x", "get_y"], calls=True))
    _jsonl(folder / "suite-no-call.jsonl", _rows("d", ["get_z"], calls=False))
    _jsonl(folder / "suite-chat.jsonl", _chat("e", 2))
    return folder


@pytest.fixture(scope="module")
def merged(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's base with its adapter, merged."""
    from lf_export.steps.merge import MergeOptions, merge_model

    out = tmp_path_factory.mktemp("merged") / "merged"
    merge_model(MergeOptions(project / "base", (project / "adapter",), out))
    return out


@pytest.fixture
def recipe(project: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write a recipe for `project` whose output is in this test's own folder; keywords replace parts."""

    def write(**changes: Any) -> Path:
        value = {
            "name": "tiny",
            "base": {"path": "base"},
            "adapters": ["adapter"],
            "output": str(tmp_path / "run"),
            "threads": 1,
            "calibration": {"calls": ["calls.jsonl"], "chat": ["chat.jsonl"], "num_samples": 12},
            "quantize": {
                "four": {"format": "gptq", "bits": 4, "group_size": 32},
                "q8": {"format": "gguf", "type": "Q8_0"},
                "q4": {"format": "gguf", "type": "Q4_K_M"},
            },
            "bench": {
                "calls": {"path": "suite-calls.jsonl"},
                "no_call": {"path": "suite-no-call.jsonl"},
                "chat": {"path": "suite-chat.jsonl"},
                "max_new_tokens": 8,
                "latency_prompts": 1,
                "latency_tokens": 4,
            },
            **changes,
        }
        path = project / f"{tmp_path.name}.yaml"
        path.write_text(yaml.safe_dump(value, sort_keys=False), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def release(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """A whole run of one artifact, `q8`, by `lf_export.run`; tests change nothing in it."""
    folder = tmp_path_factory.mktemp("release") / "run"
    suites = {
        name: {"path": f"suite-{name.replace('_', '-')}.jsonl", "limit": 1} for name in ("calls", "no_call", "chat")
    }
    value = {
        "name": "release",
        "base": {"path": "base"},
        "adapters": ["adapter"],
        "output": str(folder),
        "threads": 1,
        "calibration": {"calls": ["calls.jsonl"], "chat": ["chat.jsonl"], "num_samples": 12},
        "quantize": {"q8": {"format": "gguf", "type": "Q8_0", "method": "rtn"}},
        "bench": {**suites, "max_new_tokens": 8},
    }
    recipe = project / "release.yaml"
    recipe.write_text(yaml.safe_dump(value, sort_keys=False), encoding="utf-8")
    report = package.run(recipe)
    assert report is not None
    return Release(recipe, folder, report)
