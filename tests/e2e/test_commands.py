"""Each command by itself, and each bad input with its error and exit status."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from models import tiny_adapter, tiny_model
from safetensors.torch import load_file, save_file
from said import Said
from times_of_reports import TIMES

from lf_export.calibration.suites import load_suite
from lf_export.functions.spec import schema_hash
from lf_export.progress import reporting
from lf_export.provenance import manifest, write_manifest
from lf_export.steps.bench import bench_artifacts
from lf_export.steps.bench_options import BenchOptions
from lf_export.steps.latency_grid import Grid

Run = Callable[..., Any]
SUITES = {"calls": "calls", "no_call": "no-call", "chat": "chat"}


def test_merge_leaves_a_complete_folder(lf_export: Run, project: Path, tmp_path: Path) -> None:
    ended = lf_export("merge", project / "base", project / "adapter", "-o", tmp_path / "out")
    assert ended.status == 0
    assert "14 tensors changed" in ended.out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"config.json", "tokenizer.json", "chat_template.jinja", "LICENSE", "lf-export.json"} <= names
    assert "model-00001-of-00002.safetensors" in names


def test_merge_takes_weights_and_verifies_what_it_wrote(lf_export: Run, project: Path, tmp_path: Path) -> None:
    twice = (project / "base", f"{project / 'adapter'}=0.5", f"{project / 'adapter'}=2", "-o", tmp_path / "out")
    ended = lf_export("merge", *twice, "--combine", "linear", "--json")
    assert ended.status == 0, ended.err
    told = json.loads(ended.out)["merge"]
    assert [adapter["weight"] for adapter in told["adapters"]] == [0.5, 2.0]
    assert told["combine"] == "linear"
    checked = lf_export("merge", *twice, "--combine", "linear", "--verify")
    assert checked.status == 0, checked.err
    assert "verified:" in checked.out
    assert lf_export("merge", *twice, "--verify").status == 5
    assert lf_export("merge", project / "base", f"{project / 'adapter'}=much", "-o", tmp_path / "no").status == 2


def test_calibrate_prints_the_audit_and_quantize_takes_its_folder(
    lf_export: Run, merged: Path, project: Path, tmp_path: Path
) -> None:
    data = ("--calls", project / "calls.jsonl", "--chat", project / "chat.jsonl", "--num-samples", "12")
    audited = lf_export("calibrate", merged, *data, "-o", tmp_path / "set")
    assert audited.status == 0
    assert "inside calls" in audited.out
    made = lf_export(
        "quantize", merged, "--format", "gptq:8", "--calibration", tmp_path / "set", "-o", tmp_path / "eight", "--json"
    )
    assert made.status == 0, made.err
    (manifest,) = json.loads(made.out)["artifacts"].values()
    audit = json.loads(lf_export("calibrate", merged, *data, "--json").out)
    assert manifest["calibration"]["digest"] == audit["digest"]
    assert manifest["calibration"]["suites"] == audit["suites"] == ["calls", "no-call"]  # no path of this machine
    config = json.loads((tmp_path / "eight" / "config.json").read_text(encoding="utf-8"))
    assert config["quantization_config"]["bits"] == 8
    assert config["quantization_config"]["checkpoint_format"] == "gptq"


def test_inspect_names_what_it_sees(lf_export: Run, project: Path, merged: Path) -> None:
    assert "LlamaForCausalLM" in lf_export("inspect", merged).out
    assert json.loads(lf_export("inspect", project / "adapter", "--json").out)["rank"] == 4
    assert lf_export("inspect", project / "none").status == 3


def test_a_bench_is_the_same_with_what_an_earlier_one_kept_of_the_baseline(
    merged: Path, project: Path, tmp_path: Path
) -> None:
    shutil.copytree(merged, tmp_path / "copy")
    suites = {name: str(project / f"suite-{file}.jsonl") for name, file in SUITES.items()}
    options = BenchOptions(
        **suites, max_new_tokens=8, latency_prompts=1, latency_tokens=4, cache=tmp_path / "cache", name="kept",
        grid=Grid((16, 4_000), (1, 3), new_tokens=3, repeats=2),
    )  # fmt: skip
    reports, said = [], Said()
    for name in ("first", "second"):
        with reporting(said):
            outcome = bench_artifacts({"copy": tmp_path / "copy"}, merged, tmp_path / name, options)
        assert outcome.status == 11
        assert any("kept from an earlier run" in line for line in said.lines) == (name == "second")
        reports.append(json.loads((tmp_path / name / "report.json").read_text(encoding="utf-8")))
    (artifact,) = reports[0]["artifacts"]
    assert artifact["fidelity"]["call"]["kl_mean"] == 0
    assert artifact["fidelity"]["call"]["top1_agreement"] == 1.0
    timed = artifact["latency_grid"]["cells"]
    assert [len(cell["artifact_times"]) for cell in timed] == [len(cell["baseline_times"]) for cell in timed]
    assert [len(cell["artifact_times"]) for cell in timed] == [2, 2, 0, 0]
    assert all("do not fit the model's context of 2048" in cell["why"] for cell in timed[2:])
    assert all(cell["ttft"]["lower"] < cell["ttft"]["upper"] for cell in timed[:2])
    note = reports[1]["baseline"]["notes"].pop()
    assert "kept from an earlier run" in note
    first, second = (json.dumps(_untimed(report), sort_keys=True) for report in reports)
    assert first == second


def _untimed(value: Any) -> Any:
    """A report without what is taken anew in each run: times, and the artifact's memory."""
    if isinstance(value, list):
        return [_untimed(each) for each in value]
    if not isinstance(value, dict):
        return value
    anew = TIMES | {"limits"}
    if value.get("name") != "merged":
        anew |= {"cpu_seconds", "peak_rss_bytes"}
    return {key: _untimed(each) for key, each in value.items() if key not in anew}


def test_controls_are_judged_beside_the_artifacts_and_hold_the_verdict_back(
    lf_export: Run, merged: Path, project: Path, tmp_path: Path
) -> None:
    shutil.copytree(merged, tmp_path / "copy")
    ended = lf_export(
        "bench", tmp_path / "copy", "--baseline", merged, "-o", tmp_path / "bench", "--controls",
        "--calls", project / "suite-calls.jsonl", "--no-call", project / "suite-no-call.jsonl",
        "--chat", project / "suite-chat.jsonl", "--max-new-tokens", "8",
    )  # fmt: skip
    assert ended.status == 11
    assert "control-self: control, expected is no flips, as it came out" in ended.out
    assert "control-q2_k: control, expected is FAIL, which did NOT come out: this run proves nothing" in ended.out
    report = json.loads((tmp_path / "bench" / "report.json").read_text(encoding="utf-8"))
    found = {part["name"]: (part["control"], part["enforced"], part["path"]) for part in report["artifacts"]}
    assert found.pop("copy")[:2] == (None, True)
    assert list(found) == ["control-self", "control-q8_0", "control-q2_k"]
    assert {(enforced, path) for _, enforced, path in found.values()} == {(False, "")}
    kept = {path.name for path in (tmp_path / "bench").iterdir()}
    assert kept == {"report.json", "report.md", "report.html", "junit.xml", "lf-export.json"}


def test_bench_takes_the_leaderboards_questions_and_variants_and_refuses_what_was_calibrated_on(
    lf_export: Run, merged: Path, project: Path, tmp_path: Path
) -> None:
    properties = {"city": {"type": "string"}, "days": {"type": "float"}}
    schema = {"type": "dict", "properties": properties, "required": ["city"]}
    shown = [{"name": name, "description": "", "parameters": schema} for name in ("fetch.x", "fetch.y")]
    asked = [[{"role": "user", "content": "x?"}]]
    data = tmp_path / "data"
    (data / "possible_answer").mkdir(parents=True)
    for category, name in (("multiple", "m0"), ("irrelevance", "i0")):
        row = {"id": name, "question": asked, "function": shown}
        (data / f"BFCL_v4_{category}.json").write_text(json.dumps(row) + "\n")
    truth = {"id": "m0", "ground_truth": [{"fetch.y": {"city": ["Oslo", "oslo"], "days": [2.0, ""]}}]}
    (data / "possible_answer" / "BFCL_v4_multiple.json").write_text(json.dumps(truth) + "\n")
    shutil.copytree(merged, tmp_path / "copy")
    command = [
        "bench", tmp_path / "copy", "--baseline", merged, "-o", tmp_path / "bench",
        "--calls", f"bfcl:{data}", "--no-call", f"bfcl:{data}", "--chat", project / "suite-chat.jsonl",
        "--variant", "masked", "--variant", "distractors:1", "--max-new-tokens", "8",
    ]  # fmt: skip
    ended = lf_export(*command, "--json")
    assert ended.status == 11
    report = json.loads(ended.out)
    (artifact,) = report["artifacts"]
    assert report["suites"]["calls"]["path"] == "bfcl:data"
    assert (artifact["calls"]["n"], artifact["no_call"]["n"]) == (1, 1)
    assert artifact["calls"]["arguments"]["expected"] == 1
    assert list(artifact["variants"]) == ["distractors:1", "masked"]
    assert {item["id"] for item in artifact["raw"]["items"]} == {
        "m0", "i0", "m0~masked", "i0~masked", "m0~distractors:1"
    }  # fmt: skip
    assert artifact["gate"]["endpoints"][0]["n"] == 1  # variants do not count there
    (item,) = load_suite(f"bfcl:{data}")[:1]
    facts = {"calibration": {"digest": "x", "schemas": [schema_hash(item.functions[0])]}}
    write_manifest(tmp_path / "copy", manifest("gptq", **facts))
    refused = lf_export(*command)
    assert refused.status == 3
    assert "copy: was calibrated on the function 'fetch.x', which the suite calls shows" in refused.err
    allowed = lf_export(*command, "--allow-contaminated", "fetch.x", "--json")
    assert allowed.status == 11
    assert "as allowed" in json.loads(allowed.out)["artifacts"][0]["notes"][0]


def test_an_artifact_that_does_not_load_fails(lf_export: Run, merged: Path, project: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + b"\0" * 100)
    ended = lf_export(
        "bench", tmp_path / "broken.gguf", "--baseline", merged, "-o", tmp_path / "bench",
        "--calls", project / "suite-calls.jsonl", "--no-call", project / "suite-no-call.jsonl",
        "--chat", project / "suite-chat.jsonl", "--max-new-tokens", "8",
    )  # fmt: skip
    assert ended.status == 10
    assert "FAIL" in ended.out


def _copy(project: Path, tmp_path: Path) -> Path:
    shutil.copytree(project / "base", tmp_path / "base")
    return tmp_path / "base"


def _truncate(project: Path, tmp_path: Path) -> list[Any]:
    base = _copy(project, tmp_path)
    shard = base / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    return ["merge", base, project / "adapter", "-o", tmp_path / "out"]


def _missing_shard(project: Path, tmp_path: Path) -> list[Any]:
    base = _copy(project, tmp_path)
    (base / "model-00002-of-00002.safetensors").unlink()
    return ["merge", base, project / "adapter", "-o", tmp_path / "out"]


def _escaping_index(project: Path, tmp_path: Path) -> list[Any]:
    base = _copy(project, tmp_path)
    path = base / "model.safetensors.index.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    index["weight_map"] = dict.fromkeys(index["weight_map"], "../../etc/passwd")
    path.write_text(json.dumps(index), encoding="utf-8")
    return ["merge", base, project / "adapter", "-o", tmp_path / "out"]


def _pickle(project: Path, tmp_path: Path) -> list[Any]:
    base = _copy(project, tmp_path)
    for path in base.glob("model*"):
        path.unlink()
    (base / "pytorch_model.bin").write_bytes(b"\x80\x04")
    return ["merge", base, project / "adapter", "-o", tmp_path / "out"]


def _other_adapter(project: Path, tmp_path: Path) -> list[Any]:
    other = tiny_model(tmp_path / "other", hidden_size=32, head_dim=8)
    tiny_adapter(tmp_path / "adapter", other)
    return ["merge", project / "base", tmp_path / "adapter", "-o", tmp_path / "out"]


def _nan_weights(project: Path, tmp_path: Path) -> list[Any]:
    base = _copy(project, tmp_path)
    shard = base / "model-00001-of-00002.safetensors"
    tensors = load_file(shard)
    name = next(name for name in tensors if "q_proj" in name)
    tensors[name][0, 0] = torch.nan
    save_file(tensors, shard, metadata={"format": "pt"})
    return ["merge", base, project / "adapter", "-o", tmp_path / "out"]


def _existing_output(project: Path, tmp_path: Path) -> list[Any]:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    return ["merge", project / "base", project / "adapter", "-o", tmp_path / "out"]


def _unknown_architecture(project: Path, tmp_path: Path) -> list[Any]:
    base = _copy(project, tmp_path)
    path = base / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(
        json.dumps(config | {"model_type": "mamba", "architectures": ["MambaForCausalLM"]}), encoding="utf-8"
    )
    return ["quantize", base, "--format", "gptq", "-o", tmp_path / "out"]


def _group_size(project: Path, tmp_path: Path) -> list[Any]:
    return ["quantize", project / "base", "--format", "gptq", "--group-size", "48", "-o", tmp_path / "out"]


def _malformed_line(project: Path, tmp_path: Path) -> list[Any]:
    (tmp_path / "bad.jsonl").write_text('{"messages": []}\n\n{"a"\n', encoding="utf-8")
    return ["calibrate", project / "base", "--calls", tmp_path / "bad.jsonl"]


def _no_template(project: Path, tmp_path: Path) -> list[Any]:
    base = _copy(project, tmp_path)
    (base / "chat_template.jinja").unlink()
    return ["calibrate", base, "--calls", project / "calls.jsonl", "--chat", project / "chat.jsonl"]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_truncate, "model-00002-of-00002.safetensors"),
        (_missing_shard, "model-00002-of-00002.safetensors: no such file"),
        (_escaping_index, "leads outside this folder"),
        (_pickle, "pickles"),
        (_other_adapter, "q_proj"),
        (_nan_weights, "q_proj"),
        (_existing_output, "exists already"),
        (_unknown_architecture, "mamba"),
        (_group_size, "48"),
        (_malformed_line, "bad.jsonl:3:"),
        (_no_template, "chat template"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_bad_input_leaves_with_3_says_where_and_leaves_nothing(
    lf_export: Run, project: Path, tmp_path: Path, make: Callable[..., list[Any]], says: str
) -> None:
    ended = lf_export(*make(project, tmp_path))
    assert ended.status == 3, ended.err
    assert says in ended.err
    assert "error: " in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "out" / "config.json").exists()
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".out")] == []
