"""The functions for Python do what the commands do, and return what these print."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from times_of_reports import TIMES

import lf_export as package
from lf_export.checkpoint import lock
from lf_export.manifest_keys import KEYS
from lf_export.provenance import read_manifest
from lf_export.report import Report

Run = Callable[..., Any]


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _without_times(value: Any) -> Any:
    """What two runs have in common: no seconds, no speeds, no memory."""
    if isinstance(value, Mapping):
        varies = TIMES | {"peak_rss_bytes", "beside", "generation", "raw"}
        return {key: _without_times(each) for key, each in value.items() if key not in varies and "seconds" not in key}
    return [_without_times(each) for each in value] if isinstance(value, list) else value


def test_merge_writes_and_returns_what_the_command_does(lf_export: Run, project: Path, tmp_path: Path) -> None:
    base, adapter = project / "base", project / "adapter"
    made = package.merge(base, [adapter, (str(adapter), 0.5)], tmp_path / "ours", dtype="float16", threads=1)
    options = ("-o", tmp_path / "theirs", "--dtype", "float16", "--json")
    ended = lf_export("merge", base, adapter, f"{adapter}=0.5", *options)
    assert made == json.loads(ended.out)
    assert made["options"]["weights"] == [1.0, 0.5]
    assert _files(tmp_path / "ours") == _files(tmp_path / "theirs")
    with pytest.raises(package.InputError, match="exists"):
        package.merge(base, adapter, tmp_path / "ours")
    package.merge(base, adapter, tmp_path / "ours", overwrite=True)
    assert json.loads((tmp_path / "ours" / "lf-export.json").read_text())["options"]["weights"] == [1.0]


def test_calibrate_and_quantize_write_and_return_what_the_commands_do(
    lf_export: Run, merged: Path, project: Path, tmp_path: Path
) -> None:
    calls, chat = project / "calls.jsonl", project / "chat.jsonl"
    audit = package.calibrate(merged, calls=str(calls), chat=[str(chat)], num_samples=12, out=tmp_path / "set")
    data = ("--calls", calls, "--chat", chat, "--num-samples", "12")
    assert audit == json.loads(lf_export("calibrate", merged, *data, "--json").out)

    made = package.quantize(
        merged, ["gptq:8", "gguf:Q4_0"], tmp_path / "ours",
        calibration=tmp_path / "set", group_size=32, tensor_types={"*.ffn_down": "q8_0"}, threads=1, memory="8GB",
    )  # fmt: skip
    ended = lf_export(
        "quantize", merged, "--format", "gptq:8", "--format", "gguf:Q4_0", "-o", tmp_path / "theirs",
        "--calibration", tmp_path / "set", "--group-size", "32", "--tensor-type", "*.ffn_down=Q8_0",
        "--memory", "8GB", "--json",
    )  # fmt: skip
    assert list(made) == ["artifacts"]
    assert list(made["artifacts"].values()) == list(json.loads(ended.out)["artifacts"].values())
    assert list(made["artifacts"]) == [str(tmp_path / "ours" / name) for name in ("gptq-8bit", "gguf-q4_0")]
    assert _files(tmp_path / "ours") == _files(tmp_path / "theirs")


def test_run_returns_the_report_that_it_wrote_and_the_command_prints(lf_export: Run, release: Any) -> None:
    assert isinstance(release.report, Report)
    assert release.report.verdict == "INCONCLUSIVE"  # a random model: no evidence, and no exception
    ended = lf_export("run", release.recipe, "--json")
    assert ended.status == 11
    assert json.loads(ended.out) == release.report.model_dump(mode="json")
    assert package.run(release.recipe, settings={"base.path": release.recipe.parent / "base"}) == release.report


def test_every_manifest_of_a_run_has_the_keys_that_the_reference_says(release: Any) -> None:
    for folder, kind in (("merged", "merged"), ("calibration", "calibration"), ("q8", "gguf"), ("bench", "bench")):
        made = read_manifest(release.folder / folder)
        assert made is not None
        assert made["kind"] == kind
        assert set(made) == {name for name, key in KEYS.items() if kind in key.kinds}


def test_plan_is_what_a_dry_run_prints(lf_export: Run, release: Any, tmp_path: Path) -> None:
    settings = {
        "output": str(tmp_path / "other"),
        "quantize.q8.type": "Q4_0",
        "adapters": [release.recipe.parent / "adapter"],
    }
    planned = package.plan(release.recipe, settings=settings, threads=1)
    assert not (tmp_path / "other").exists()
    given = [f"--set={key}={value}" for key, value in settings.items() if key != "adapters"]
    ended = lf_export(
        "run", release.recipe, "--dry-run", "--json", *given, f"--set=adapters=[{settings['adapters'][0]}]"
    )
    assert _without_times(planned) == _without_times(json.loads(ended.out))
    assert planned["needs"]["steps_to_do"] == 4
    assert package.plan(release.recipe)["needs"]["steps_to_do"] == 0


def test_bench_returns_the_report_that_lies_there_and_is_that_of_a_run(release: Any, tmp_path: Path) -> None:
    project = release.recipe.parent
    suites = {name: str(project / f"suite-{name.replace('_', '-')}.jsonl") for name in ("calls", "no_call", "chat")}
    report = package.bench(
        release.folder / "q8", release.folder / "merged", tmp_path / "bench", **suites,
        limit_calls=1, limit_no_call=1, limit_chat=1, max_new_tokens=8, runtimes={"q8": "llamacpp"}, threads=1,
    )  # fmt: skip
    assert report == Report.model_validate_json((tmp_path / "bench" / "report.json").read_text(encoding="utf-8"))
    theirs = release.report.model_copy(update={"name": report.name})
    assert _without_times(report.model_dump(mode="json")) == _without_times(theirs.model_dump(mode="json"))


def test_a_recipe_without_a_bench_has_no_report(release: Any, tmp_path: Path) -> None:
    assert package.run(release.recipe, settings={"bench": None, "output": tmp_path / "run"}, threads=1) is None
    assert (tmp_path / "run" / "q8" / "lf-export.json").is_file()


def test_errors_are_export_errors_with_what_and_where(project: Path, tmp_path: Path) -> None:
    for call in (
        lambda: package.merge(project / "none", project / "adapter", tmp_path / "out"),
        lambda: package.merge(project / "base", [], tmp_path / "out"),
        lambda: package.quantize(project / "base", "gguf:Q9", tmp_path / "out"),
        lambda: package.quantize(project / "base", [], tmp_path / "out"),
        lambda: package.bench(tmp_path / "none", project / "base", tmp_path / "out"),
        lambda: package.bench([], project / "base", tmp_path / "out"),
        lambda: package.run(tmp_path / "none.yaml"),
        lambda: package.plan("shipped:quickstart", settings={"gate.margin": 2}),
    ):
        with pytest.raises(package.ExportError) as caught:
            call()
        assert caught.value.status == 3
        assert caught.value.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wait", [False, True])
def test_a_run_waits_for_another_where_it_is_told_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wait: bool
) -> None:
    waits = []
    monkeypatch.setattr("lf_export.steps.merge.merge_model", lambda _options: waits.append(lock._patient.get()) or {})
    assert package.merge(tmp_path, tmp_path, tmp_path, wait=wait) == {}
    assert waits == [wait]
