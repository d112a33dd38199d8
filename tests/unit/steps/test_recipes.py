"""The recipes that ship load, plan without weights, and can be copied and edited."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from models import tiny_model

from lf_export.errors import InputError
from lf_export.formats.pace import Pace
from lf_export.recipe import load_recipe, read_overrides
from lf_export.shipped import shipped
from lf_export.steps.recipes import copy_recipe, list_text, recipe_file, shipped_recipes
from lf_export.steps.run import plan_text, run_recipe

NAMES = [each.name for each in shipped_recipes()]
BYTES = {"7b": 13_476_831_232, "13b": 26_031_728_640, "70b": 137_953_296_384}


@pytest.fixture(autouse=True)
def known_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 100 GFLOP/s that rounds ten million weights in a second: nothing is measured in a test."""
    monkeypatch.setattr(Pace, "rate", lambda *_: 1e11)
    monkeypatch.setattr(Pace, "rounding", lambda _self, _key, _quantize, weights: weights / 1e7)


def planned(name: str, *settings: str) -> tuple[str, dict[str, Any]]:
    return plan_text(Path(f"shipped:{name}"), 1, None, read_overrides(settings))


def test_what_the_issue_asks_for_ships() -> None:
    wanted = {"quickstart", "release", "bench-endpoint", *(f"llama-2-{size}-functions" for size in BYTES)}
    assert wanted <= set(NAMES)
    assert all(each.summary.endswith(".") for each in shipped_recipes())
    assert list_text(shipped_recipes()).count("\n") == len(NAMES) - 1


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_that_ships_loads_and_plans(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # no base that was fetched before
    recipe = load_recipe(recipe_file(Path(f"shipped:{name}")))
    text, facts = planned(name)
    bench = [] if recipe.bench is None else ["bench"]
    assert [step["name"] for step in facts["steps"]] == ["merged", "calibration", *recipe.quantize, *bench]
    assert recipe.name == name
    assert text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", BYTES)
def test_llama_2_is_planned_from_its_config_alone(size: str) -> None:
    text, facts = planned(f"llama-2-{size}-functions")
    merged = facts["steps"][0]
    assert (merged["reads_bytes"], merged["writes_bytes"]) == (BYTES[size], BYTES[size])
    for step in facts["steps"][2:]:
        assert step["writes_bytes"]
        assert step["peak_memory_bytes"]
        if not step["name"].startswith(("onnx", "bench")):
            assert step["seconds"] > 0
    assert facts["needs"]["disk"] > BYTES[size]
    assert f"planned from {size}/config.json" in text
    assert [line for line in text.splitlines() if line.startswith("assumed: ")] == [
        f"assumed: {each}" for each in facts["assumptions"]
    ]
    assert len(facts["assumptions"]) == 3


def test_seventy_billion_fit_one_machine_without_a_gpu() -> None:
    _, facts = planned("llama-2-70b-functions")
    assert facts["needs"]["peak_memory"] < 42e9


def test_a_plan_from_the_config_is_the_plan_from_the_weights(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", tie_word_embeddings=False)
    config = tmp_path / "config"
    config.mkdir()
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(model / name, config)
    plans = [
        planned(
            "llama-2-7b-functions",
            f"base.path={base}",
            "calibration.dialect=chat-template",
            "quantize.gptq-4bit.group_size=auto",
            "quantize.awq-4bit.group_size=auto",
            "quantize.gguf-q4_k_m.type=Q8_0",
            "quantize.gguf-q5_k_m.type=F16",
        )[1]
        for base in (model, config)
    ]
    sizes = [
        [{key: step[key] for key in step if key.endswith("_bytes") or key == "seconds"} for step in plan["steps"]]
        for plan in plans
    ]
    assert sizes[0] == sizes[1]
    assert [len(plan["assumptions"]) for plan in plans] == [1, 2]  # the adapter; the weights too


def test_a_run_asks_for_the_weights(tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    settings = read_overrides([f"adapters=[{adapter}]", f"output={tmp_path / 'out'}"])
    with pytest.raises(InputError) as caught:
        run_recipe(Path("shipped:llama-2-7b-functions"), 1, None, settings)
    assert "config.json alone, the weights of the base model were expected" in caught.value.message
    assert "--set base.path=FOLDER" in str(caught.value.hint)
    assert not (tmp_path / "out").exists()


def test_a_run_asks_for_the_adapter(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        run_recipe(Path("shipped:llama-2-7b-functions"), 1, None, read_overrides([f"output={tmp_path / 'out'}"]))
    assert "my-adapter: no such folder" in caught.value.message


def test_an_adapter_that_is_there_and_wrong_is_a_mistake_in_a_plan_too(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        planned("llama-2-7b-functions", f"adapters=[{tmp_path}]")
    assert "adapter_config.json" in caught.value.message


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_is_complete_and_never_replaces_anything(name: str, tmp_path: Path) -> None:
    written = copy_recipe(name, tmp_path / "mine")
    copied = tmp_path / "mine" / f"{name}.yaml"
    assert copied in written
    assert load_recipe(copied) == load_recipe(shipped("recipes", f"{name}.yaml"))
    base = load_recipe(copied).base
    assert (copied.parent / str(base.script or base.path)).exists()
    assert json.loads((copied.parent / "recipe.schema.json").read_text(encoding="utf-8"))["title"] == "Recipe"
    with pytest.raises(InputError, match="exists already"):
        copy_recipe(name, tmp_path / "mine")


def test_a_recipe_that_does_not_ship_is_named(tmp_path: Path) -> None:
    for name in ("shipped:quikstart", "shipped:../pyproject"):
        with pytest.raises(InputError, match="no recipe named"):
            recipe_file(Path(name))
    with pytest.raises(InputError, match="no recipe named"):
        copy_recipe("nothing", tmp_path)
