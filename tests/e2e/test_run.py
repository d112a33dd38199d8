"""A recipe goes the whole way, says what it will do, and goes on where it stopped."""

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

import jsonschema
import pytest
import yaml
from huggingface_hub import ModelCard

Run = Callable[..., Any]
ARTIFACTS = ("four", "q8", "q4")
SCHEMA = Path(__file__).parents[2] / "docs" / "reference" / "report.schema.json"


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for name in ("merged", "calibration", *ARTIFACTS)
        for path in sorted((folder / name).rglob("*"))
        if path.is_file()
    }


def _finished(record: Path) -> bool:
    """Whether the step's record says what it made, and not only that it was begun."""
    try:
        return json.loads(record.read_text(encoding="utf-8"))["output"] is not None
    except FileNotFoundError:
        return False


def with_arms(recipe: Callable[..., Path]) -> Path:
    """The recipe with every arm of the bench."""
    value = yaml.safe_load(recipe().read_text(encoding="utf-8"))
    return recipe(bench={**value["bench"], "arms": ["raw", "constrained", "routed"]})


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Any]:
    """What an undisturbed run leaves for the killed one: the digests of its artifacts."""
    return {}


def test_a_recipe_makes_every_artifact_and_a_report(
    lf_export: Run, recipe: Callable[..., Path], tmp_path: Path
) -> None:
    ended = lf_export("run", with_arms(recipe), "--json")
    assert ended.status == 11, ended.err  # a random model calls nothing right: there is no evidence, so no PASS
    report = json.loads(ended.out)
    jsonschema.validate(report, json.loads(SCHEMA.read_text(encoding="utf-8")))
    assert report["verdict"] == "INCONCLUSIVE"
    assert [artifact["name"] for artifact in report["artifacts"]] == list(ARTIFACTS)
    for artifact in report["artifacts"]:
        assert artifact["gate"]["problems"] == []
        assert artifact["calls"]["n"] == 4
        assert artifact["no_call"]["n"] == 2
        assert artifact["fidelity"]["call"]["tokens"] > 0
        assert artifact["disk_bytes"] > 10_000
        assert artifact["peak_rss_bytes"] > 10_000_000
        assert artifact["latency"]["tpot"]["p50"] > 0
    for artifact in (report["baseline"], *report["artifacts"]):
        constrained, routed = artifact["arms"]
        assert constrained["engine"] == {"torch": "llguidance", "llamacpp": "llama.cpp"}[artifact["runtime"]]
        assert [change["n"] for change in constrained["changes"]] == [4, 2]
        assert (routed["router"]["trained"], routed["router"]["held_out"], routed["router"]["items"]) == (14, 6, 6)
        # a random model opens no call: what is held to a grammar then is what the router decides should call
        assert constrained["asked"] == 0
        assert routed["asked"] == len(routed["items"])
    four, q8, _ = report["artifacts"]
    assert (four["format"], four["runtime"], four["representative"]) == ("gptq", "torch", False)
    assert (q8["format"], q8["scheme"], q8["runtime"]) == ("gguf", "Q8_0", "llamacpp")
    # eight bits are nearer to the merged model than four
    assert q8["fidelity"]["call"]["kl_mean"] < four["fidelity"]["call"]["kl_mean"]
    run = tmp_path / "run"
    assert {"report.md", "report.html", "junit.xml"} <= {path.name for path in (run / "bench").iterdir()}
    for name, artifact in zip(ARTIFACTS, report["artifacts"], strict=True):
        assert {"lf-export.json", "README.md", "LICENSE"} <= {path.name for path in (run / name).iterdir()}
        card = ModelCard((run / name / "README.md").read_text(encoding="utf-8")).data
        assert card.eval_results is not None
        perplexity = {each.metric_type: each.metric_value for each in card.eval_results}["perplexity"]
        assert perplexity == pytest.approx(artifact["chat_perplexity"], rel=1e-3)
    # the quantizer's errors are in the report, layer by layer
    assert [each["layer"] for each in four["layer_errors"]["layers"]] == [0, 1]


def test_a_second_run_does_nothing_again_and_gives_the_same_verdict(
    lf_export: Run, recipe: Callable[..., Path], tmp_path: Path
) -> None:
    path = recipe()
    first = lf_export("run", path)
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "run").rglob("*") if file.is_file()}
    second = lf_export("run", path)
    assert (second.status, second.out) == (first.status, first.out)
    for name in ("merged", "calibration", *ARTIFACTS, "bench"):
        assert f"{name}: done before, kept" in second.err
    assert times == {file: file.stat().st_mtime_ns for file in (tmp_path / "run").rglob("*") if file.is_file()}


def test_only_what_is_missing_is_made_again_and_its_bytes_are_the_same(
    lf_export: Run, recipe: Callable[..., Path], tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    path = recipe(bench=None)
    assert lf_export("run", path).status == 0
    before = undisturbed["digests"] = _digests(tmp_path / "run")
    kept = (tmp_path / "run" / "q8" / "tiny-Q8_0.gguf").stat().st_mtime_ns
    (tmp_path / "run" / "q4" / "tiny-Q4_K_M.gguf").unlink()
    again = lf_export("run", path)
    assert again.status == 0
    assert "q8: done before, kept" in again.err
    assert "q4: done before" not in again.err
    assert _digests(tmp_path / "run") == before
    assert (tmp_path / "run" / "q8" / "tiny-Q8_0.gguf").stat().st_mtime_ns == kept


def test_a_killed_run_goes_on_and_gives_the_bytes_of_an_undisturbed_one(
    lf_export: Run, recipe: Callable[..., Path], tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    path = recipe(bench=None)
    command = [sys.executable, "-m", "lf_export", "run", str(path)]
    running = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    record = tmp_path / "run" / "merged.step.json"
    deadline = time.monotonic() + 300
    while not _finished(record) and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert _finished(record)
    assert not any((tmp_path / "run" / name).exists() for name in ARTIFACTS)
    ended = lf_export("run", path)
    assert ended.status == 0, ended.err
    assert "merged: done before, kept" in ended.err
    assert _digests(tmp_path / "run") == undisturbed["digests"]
    assert [file for file in (tmp_path / "run").iterdir() if file.name.startswith(".")] == []


def test_a_dry_run_says_what_it_would_do_and_touches_nothing(
    lf_export: Run, recipe: Callable[..., Path], tmp_path: Path
) -> None:
    ended = lf_export("run", with_arms(recipe), "--dry-run")
    assert ended.status == 0
    assert "arm constrained: for each of the 4 models writes again the answers that open a call, at most 6" in ended.out
    assert "arm routed: for each of the 4 models reads 6 prompts" in ended.out
    for name in ("merged", "calibration", *ARTIFACTS, "bench"):
        assert name in ended.out
    assert "still to do: 6 of 6 steps" in ended.out
    assert not (tmp_path / "run").exists()
    facts = json.loads(lf_export("run", recipe(), "--dry-run", "--json").out)
    assert facts["needs"]["disk"] > 0
    assert all(step["writes_bytes"] > 0 for step in facts["steps"])
    assert {step["name"]: step["seconds"] is not None for step in facts["steps"]} == {
        name: name in ARTIFACTS for name in ("merged", "calibration", *ARTIFACTS, "bench")
    }
    assert "times are estimates" in ended.out


def test_a_changed_option_makes_again_what_depends_on_it(
    lf_export: Run, recipe: Callable[..., Path], tmp_path: Path
) -> None:
    one = {"q8": {"format": "gguf", "type": "Q8_0"}, "q4": {"format": "gguf", "type": "Q4_K_M"}}
    assert lf_export("run", recipe(bench=None, quantize=one)).status == 0
    other = one | {"q4": {"format": "gguf", "type": "Q6_K"}}
    ended = lf_export("run", recipe(bench=None, quantize=other))
    assert ended.status == 0
    assert "merged: done before, kept" in ended.err
    assert "q8: done before, kept" in ended.err
    assert [file.name for file in (tmp_path / "run" / "q4").glob("tiny-*.gguf")] == ["tiny-Q6_K.gguf"]


def test_a_folder_that_the_recipe_did_not_make_is_never_replaced(
    lf_export: Run, recipe: Callable[..., Path], tmp_path: Path
) -> None:
    mine = tmp_path / "run" / "q8"
    mine.mkdir(parents=True)
    (mine / "precious.txt").write_text("mine", encoding="utf-8")
    ended = lf_export("run", recipe())
    assert ended.status == 3
    assert f"{mine}: exists and was not made by this recipe" in ended.err
    assert (mine / "precious.txt").read_text(encoding="utf-8") == "mine"


def test_a_recipe_with_an_average_of_bits_and_overrides_is_planned_made_and_kept(
    lf_export: Run, recipe: Callable[..., Path], tmp_path: Path
) -> None:
    mixed = {
        "format": "gptq",
        "bits": 4.5,
        "group_size": 32,
        "overrides": {"*.v_proj": {"group_size": 16}, "model.layers.0.mlp.down_proj": {"skip": True}},
    }
    path = recipe(quantize={"mixed": mixed}, bench=None)
    planned = json.loads(lf_export("run", path, "--dry-run", "--json").out)
    (step,) = (step for step in planned["steps"] if step["name"] == "mixed")
    assert step["scratch_bytes"] > 0
    ended = lf_export("run", path)
    assert ended.status == 0, ended.err
    manifest = json.loads((tmp_path / "run" / "mixed" / "lf-export.json").read_text(encoding="utf-8"))
    assert manifest["artifact"]["average_bits"] <= 4.5
    assert manifest["options"]["overrides"][0] == ["*.v_proj", {"group_size": 16}]
    assert {each["bits"] for each in manifest["artifact"]["linears"].values()} == {4, 8}
    assert "mixed: done before, kept" in lf_export("run", path).err
    turned = recipe(quantize={"mixed": mixed | {"overrides": dict(reversed(mixed["overrides"].items()))}}, bench=None)
    steps = json.loads(lf_export("run", turned, "--dry-run", "--json").out)["steps"]
    assert [step["done"] for step in steps if step["name"] == "mixed"] == [False]


def test_a_plan_names_what_would_stop_the_bench_later(lf_export: Run, recipe: Callable[..., Path]) -> None:
    named = {"control-self": {"format": "gguf", "type": "Q8_0"}}
    assert lf_export("run", recipe(quantize=named), "--dry-run").status == 0
    ended = lf_export("run", recipe(quantize=named, gate={"controls": True}), "--dry-run")
    assert ended.status == 3
    assert "'control-self', which is a control's name" in ended.err
    calibration = {"calls": ["bfcl:calls.jsonl"], "chat": ["chat.jsonl"]}
    ended = lf_export("run", recipe(calibration=calibration), "--dry-run")
    assert ended.status == 3
    assert "bfcl:calls.jsonl" in ended.err
