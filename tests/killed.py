"""Commands that are killed with SIGKILL at random moments and started again, each in a fork of a warm process.

The process that imports this has imported everything once and runs no tensor itself, so that a fork starts at once and
holds no thread's lock.
"""

import contextlib
import gc
import hashlib
import json
import os
import random
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import transformers.models.llama.modeling_llama  # noqa: F401 - a fork has it at once
import yaml
from models import tiny_adapter, tiny_model
from times_of_reports import TIMES

import lf_export.formats.awq
import lf_export.formats.gguf
import lf_export.formats.gptq
import lf_export.formats.onnx
import lf_export.runtimes.causal
import lf_export.steps.bench
import lf_export.steps.compare
import lf_export.steps.run
import lf_export.walk.decoder  # noqa: F401 - likewise
from lf_export import cli
from lf_export.checkpoint import staging
from lf_export.provenance import MANIFEST_NAME

TIMED = TIMES | {"cpu_seconds", "peak_rss_bytes", "limits", "notes"}
"""What a report has of times and of the machine's state: it differs between two undisturbed benches too."""

_VIEWS = {"report.md", "report.html", "junit.xml"}  # of report.json, times and all
_AFTER_SECONDS = 300.0


@dataclass(frozen=True)
class Case:
    """One command: its arguments for an output folder, and the exit statuses of a run that has done its work."""

    name: str
    arguments: Callable[[Path], Sequence[str]]
    statuses: Sequence[int] = (0,)


@dataclass
class Trial:
    """What became of one output that was killed over and over until a run was let finish."""

    case: str
    kills: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def _jsonl(path: Path, rows: Sequence[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _rows(prefix: str, count: int, *, calls: bool = True) -> Iterator[dict[str, Any]]:
    for at in range(count):
        name = f"{prefix}_{at // 2}"
        schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
        call = {"type": "function", "function": {"name": name, "arguments": json.dumps({"city": f"{prefix}{at}"})}}
        answer: dict[str, Any] = {"content": None, "tool_calls": [call]} if calls else {"content": "I am fine."}
        yield {
            "id": f"{prefix}-{at}",
            "category": "single",
            "messages": [{"role": "user", "content": f"{name}, {at}?"}, {"role": "assistant", **answer}],
            "tools": [{"type": "function", "function": {"name": name, "description": "", "parameters": schema}}],
        }


def _chat(prefix: str, count: int) -> Iterator[dict[str, Any]]:
    for at in range(count):
        answer = {"role": "assistant", "content": f"It is {prefix} number {at}, and it is sunny and warm."}
        messages = [{"role": "user", "content": f"{prefix} {at}?"}, answer]
        yield {"id": f"{prefix}-{at}", "category": "explain", "messages": messages}


def _write_project(folder: Path) -> None:
    base = tiny_model(folder / "base", max_position_embeddings=2048, shard_size="200KB", num_hidden_layers=3)
    tiny_adapter(folder / "adapter", base)
    _jsonl(folder / "calls.jsonl", list(_rows("fetch", 12)))
    _jsonl(folder / "chat.jsonl", list(_chat("b", 10)))
    _jsonl(folder / "suite-calls.jsonl", list(_rows("get", 4)))
    _jsonl(folder / "suite-no-call.jsonl", list(_rows("take", 2, calls=False)))
    _jsonl(folder / "suite-chat.jsonl", list(_chat("e", 2)))


def _write_recipe(folder: Path, out: Path) -> Path:
    value = {
        "name": "tiny",
        "base": {"path": "base"},
        "adapters": ["adapter"],
        "output": str(out),
        "threads": 1,
        "calibration": {"calls": ["calls.jsonl"], "chat": ["chat.jsonl"], "num_samples": 12},
        "quantize": {
            "four": {"format": "gptq", "bits": 4, "group_size": 32},
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
    }
    path = folder / f"{out.parent.name}-{out.name}.yaml"
    path.write_text(yaml.safe_dump(value, sort_keys=False), encoding="utf-8")
    return path


class Killer:
    """Runs commands on a tiny model, kills them, and compares what they leave with an undisturbed run's.

    Args:
        folder: an empty folder for models, data and outputs.
        seed: of the moments.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self._random = folder, random.Random(seed)  # noqa: S311 - seeded is the point
        gc.freeze()
        self._call(lambda: _write_project(folder))
        for arguments in (
            ["merge", "base", "adapter", "-o", "merged"],
            [
                "calibrate",
                "merged",
                "--calls",
                "calls.jsonl",
                "--chat",
                "chat.jsonl",
                "--num-samples",
                "12",
                "-o",
                "set",
            ],
            ["quantize", "merged", "--format", "gguf:Q4_0", "--calibration", "set", "-o", "artifact"],
        ):
            status, said = self._run(arguments)
            assert status == 0, said
        self._undisturbed: dict[str, tuple[float, int, dict[str, str]]] = {}

    def case(self, name: str) -> Case:
        """A case by its name: `merge`, `bench`, `run` or a format."""
        f = str(self.folder)
        if name == "merge":
            return Case(name, lambda out: ["merge", f"{f}/base", f"{f}/adapter", "-o", str(out)])
        if name == "run":
            return Case(name, lambda out: ["run", str(_write_recipe(self.folder, out))], (11,))
        if name == "bench":
            suites = {"--calls": "suite-calls", "--no-call": "suite-no-call", "--chat": "suite-chat"}
            given = [word for option, file in suites.items() for word in (option, f"{f}/{file}.jsonl")]
            given += ["--max-new-tokens", "8"]
            return Case(
                name,
                lambda out: ["bench", f"{f}/artifact", "--baseline", f"{f}/merged", *given, "-o", str(out)],
                (11,),
            )
        scheme = {"gguf": "gguf:Q4_K_M", "gptq": "gptq:4"}.get(name, name)
        given = ["quantize", f"{f}/merged", "--format", scheme, "--calibration", f"{f}/set"]
        return Case(name, lambda out: [*given, "-o", str(out)])

    def undisturbed(self, case: Case) -> tuple[float, int, dict[str, str]]:
        """Seconds, renames and files of a run that nobody kills."""
        if case.name not in self._undisturbed:
            out = self.folder / "trial" / "out"  # where the others will be: a report names its artifacts by path
            counted = self.folder / "renames"
            started = time.monotonic()
            status, said = self._run(case.arguments(out), renames=counted)
            seconds = time.monotonic() - started
            assert status in case.statuses, said
            self._undisturbed[case.name] = seconds, int(counted.read_text()), left_in(out)
            shutil.rmtree(out.parent)
        return self._undisturbed[case.name]

    def trial(self, case: Case, at_most: int = 3) -> Trial:
        """Kill one to `at_most` runs, let the next one finish, and compare."""
        seconds, renames, expected = self.undisturbed(case)
        done = Trial(case.name)
        place = self.folder / "trial"
        out = place / "out"
        for _ in range(self._random.randint(1, at_most)):
            group = self._random.random() < 0.5
            if self._random.random() < 0.4:
                at = self._random.randrange(2 * renames)
                status, said = self._run(case.arguments(out), die_at=at)
                how = f"{'after' if at % 2 else 'before'} rename {at // 2 + 1}"
            else:
                after = self._random.uniform(0, seconds)
                status, said = self._run(case.arguments(out), kill_after=after, group=group)
                how = f"{after:.3f} s {'group' if group else 'process'}"
            if status != -signal.SIGKILL:
                if status not in case.statuses:
                    done.problems.append(f"not killed ({how}), but ended with {status}: {said[-500:]}")
                break  # it was done before
            done.kills.append(how)
            if case.name != "run" and out.exists():  # it was killed after that
                break
        if case.name == "run" or not out.exists():
            status, said = self._run(case.arguments(out))
            if status not in case.statuses:
                done.problems.append(f"the last run ended with {status}: {said[-800:]}")
        done.problems += _differences(expected, left_in(out))
        if case.name != "run" and hidden_in(place):
            # a kill after the artifact has its name leaves its lock, and the next run of that name removes it
            self._run([*case.arguments(out), *(["--overwrite"] if case.name != "bench" else [])])
        done.problems += [f"left: {each}" for each in hidden_in(place)]
        shutil.rmtree(place, ignore_errors=not done.problems)
        return done

    def _run(
        self,
        arguments: Sequence[str],
        *,
        kill_after: float | None = None,
        die_at: int | None = None,
        renames: Path | None = None,
        group: bool = True,
    ) -> tuple[int, str]:
        log = self.folder / "log"
        return self._call(
            lambda: _command(arguments, log, die_at, renames), self.folder, kill_after, group=group
        ), log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""

    def _call(
        self,
        work: Callable[[], int | None],
        where: Path | None = None,
        kill_after: float | None = None,
        *,
        group: bool = True,
    ) -> int:
        """Do the work in a fork of its own process group; its exit status, negative for a signal."""
        reader, writer = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if not pid:
            _child(work, where, writer)
        os.close(writer)
        with contextlib.suppress(PermissionError, ProcessLookupError):  # the child does it too: whoever comes first
            os.setpgid(pid, pid)
        try:
            if not select.select([reader], [], [], _AFTER_SECONDS if kill_after is None else kill_after)[0]:
                (os.killpg if group else os.kill)(pid, signal.SIGKILL)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        finally:
            os.close(reader)
        return status


def _child(work: Callable[[], int | None], where: Path | None, writer: int) -> None:
    status = 99
    try:
        os.setpgid(0, 0)
        if where:
            os.chdir(where)
        status = work() or 0
    finally:
        os.close(writer)
        os._exit(status)


def _command(arguments: Sequence[str], log: Path, die_at: int | None, renames: Path | None) -> int:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.stdout = sys.stderr = os.fdopen(handle, "w", encoding="utf-8")
    count = _count_renames(die_at)
    os.environ |= {"LF_EXPORT_THREADS": "1", "LF_EXPORT_CACHE": ""}
    sys.argv = ["lf-export", *arguments]
    try:
        cli.main()
    except SystemExit as ended:
        sys.stdout.flush()
        sys.stderr.flush()
        if renames:
            renames.write_text(str(count[0] // 2))
        return int(str(ended.code))
    return 98


def _count_renames(die_at: int | None) -> list[int]:
    """Count each rename twice, before and after, and die at the count that is asked for."""
    count = [0]

    def pass_by() -> None:
        if count[0] == die_at:
            os.killpg(0, signal.SIGKILL)
        count[0] += 1

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **keywords: Any) -> Any:
            pass_by()
            result = original(*arguments, **keywords)
            pass_by()
            return result

        return run

    os.rename = counted(os.rename)  # type: ignore[assignment]
    os.replace = counted(os.replace)  # type: ignore[assignment]
    staging._renameat2 = counted(staging._renameat2)  # type: ignore[assignment]
    return count


def left_in(out: Path) -> dict[str, str]:
    """A digest of each file below a folder, of a report without its times; records of steps hold times."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if not path.is_file() or name.endswith(".step.json") or path.name in _VIEWS:
            continue
        data = path.read_bytes()
        if path.name == "report.json":
            found |= {f"{name}: {place}": text for place, text in _leaves(untimed(json.loads(data)))}
            continue
        if path.name == MANIFEST_NAME and (path.parent / "report.json").exists():
            facts = json.loads(data)
            del facts["digest"]  # of the reports' digests, and those are of times too: their names stay
            facts["files"] = sorted(facts["files"])
            found |= {f"{name}: {place}": text for place, text in _leaves(untimed(facts))}
            continue
        if path.name == "README.md" and b"## Results" in data:  # what a bench has written into it, times and all
            data = b""
        found[name] = hashlib.sha256(data).hexdigest()
    return found


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Each value of a report with its place, so that a difference is named."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if parts is None or not value:
        yield place, json.dumps(value)
        return
    for key, each in parts:
        yield from _leaves(each, f"{place}/{key}")


def untimed(value: Any) -> Any:
    """A report without what differs between two undisturbed benches."""
    if isinstance(value, dict):
        return {key: untimed(each) for key, each in value.items() if key not in TIMED}
    return [untimed(each) for each in value] if isinstance(value, list) else value


def hidden_in(place: Path) -> list[str]:
    """Staging folders, locks and pending files below a folder."""
    return [str(path.relative_to(place)) for path in sorted(place.rglob(".*"))]


def _differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    names = sorted(expected.keys() | found.keys())
    return [
        f"differs: {name} ({expected.get(name)}, {found.get(name)})"
        for name in names
        if expected.get(name) != found.get(name)
    ]
