"""A recipe on a Ray cluster of this machine: the local engine's bytes, also where a worker is killed half-way."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lf_export.errors import MissingError, StepError
from lf_export.steps.engine import Task, opened
from lf_export.steps.engine_ray import RayCluster

TWO = {"four": {"format": "gptq", "bits": 4, "group_size": 32}, "q8": {"format": "gguf", "type": "Q8_0"}}
PATIENCE = 240


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for name in ("merged", "calibration", *TWO)
        for path in sorted((folder / name).rglob("*"))
        if path.is_file() and path.name != "README.md"  # a bench writes its results, times among them, into the card
    }


def workers(root: int) -> list[int]:
    """The processes below `root` that quantize or measure as a task of Ray's."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
                names[int(entry.name)] = (entry / "cmdline").read_bytes().decode(errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents[int(entry.name)] = int(status[1])

    def below(pid: int) -> bool:
        while pid > 1 and pid != root:
            pid = parents.get(pid, 0)
        return pid == root

    return [pid for pid, name in names.items() if name.startswith("ray::lf-export") and below(pid)]


def half_done(run: Path, name: str) -> bool:
    """Whether a target's journal holds its first layer and the target is not there yet."""
    staged = [path for path in run.glob(f".{name}*") if path.is_dir()]
    return not (run / name).exists() and any(
        path.stat().st_size for folder in staged for path in folder.rglob("*") if path.is_file()
    )


def test_a_lost_worker_is_replaced_and_the_bytes_are_the_local_engines(
    lf_export: Callable[..., Any], recipe: Callable[..., Path], tmp_path: Path
) -> None:
    path = recipe(quantize=TWO)
    command = [sys.executable, "-m", "lf_export", "run", str(path), "--engine", "ray", "--threads", "1", "--json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = tmp_path / "run"
    with (tmp_path / "err").open("wb") as err:
        running = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=err)
        killed: list[int] = []
        deadline = time.monotonic() + PATIENCE
        while not killed and running.poll() is None and time.monotonic() < deadline:
            if any(half_done(run, name) for name in TWO) and (found := workers(running.pid)):
                os.kill(found[0], signal.SIGKILL)
                killed = found[:1]
        out, _ = running.communicate(timeout=PATIENCE)
    said = (tmp_path / "err").read_text(encoding="utf-8")
    assert killed, said
    assert running.returncode == 11, said  # a random model: no evidence
    report = json.loads(out)
    assert [artifact["name"] for artifact in report["artifacts"]] == list(TWO)
    for artifact in report["artifacts"]:
        assert artifact["gate"]["problems"] == []
        assert "measured beside others on a cluster" in " ".join(artifact["notes"])
    assert [each for each in run.iterdir() if each.name.startswith(".")] == []
    found = digests(run)
    again = lf_export("run", path)
    assert "four: done before, kept" in again.err
    run.rename(tmp_path / "by-ray")
    assert lf_export("run", path).status == 11
    assert found == digests(run)


class _Module:
    """Ray as far as a check of room asks for it."""

    def __init__(self, **resources: float) -> None:
        self._resources = resources

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {"Alive": True, "Resources": self._resources},
            {"Alive": False, "Resources": {"CPU": 64, "memory": 1e12}},
        ]


@pytest.mark.parametrize(("threads", "memory"), [(3, 0), (1, 5_000_000_000)])
def test_a_task_that_no_machine_holds_is_refused_and_does_not_wait_for_ever(threads: int, memory: int) -> None:
    cluster = RayCluster(_Module(CPU=2, memory=4e9))
    with pytest.raises(StepError, match=r"four: needs . processors and .*the largest memory is 4\.0 GB"):
        next(cluster.results([Task("four", print, {}, threads, memory)]))


def test_without_ray_the_command_that_installs_it_is_said_and_the_local_engine_needs_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with opened("local", None) as cluster:
        assert cluster is None
    with pytest.raises(MissingError) as caught, opened("ray", None):
        pass
    assert caught.value.hint == "pip install 'lf-export[ray]'"


def test_an_address_needs_the_engine(lf_export: Callable[..., Any], recipe: Callable[..., Path]) -> None:
    ended = lf_export("run", recipe(), "--ray-address", "auto")
    assert ended.status == 2
    assert "--ray-address needs --engine ray" in ended.err
