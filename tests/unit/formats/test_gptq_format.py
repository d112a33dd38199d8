import gc
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from models import tiny_model
from pydantic import ValidationError
from safetensors.torch import load_file
from walk_data import RandomData, random_data

from lf_export.checkpoint.index import Checkpoint, open_checkpoint
from lf_export.errors import InputError, StepError
from lf_export.formats import FORMATS
from lf_export.formats.gptq import FORMAT, GptqOptions
from lf_export.quant import dequantize_stored
from lf_export.walk.stream import walk

DATA = random_data([40, 30, 50, 60, 20, 45, 38, 70] * 2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("gptq") / "model", "qwen2", dtype=torch.bfloat16)


def write(checkpoint: Checkpoint, out: Path, data: RandomData = DATA, **options: Any) -> dict[str, Any]:
    out.mkdir()
    target = FORMAT.open(checkpoint, out, GptqOptions(**options), data.digest)
    walk(checkpoint, data, [target], dtype=torch.float32)
    return target.finish()


@pytest.fixture(scope="module")
def artifact(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("artifact") / "gptq"
    return out, write(open_checkpoint(model), out, group_size=32)


def test_the_table_has_the_format_under_its_own_name() -> None:
    assert FORMATS["gptq"] is FORMAT
    assert FORMAT.schemes["W4A16"] == {"bits": 4}


def test_quantized_linears_and_everything_else_are_all_there(model: Path, artifact: tuple[Path, Any]) -> None:
    before, after = load_file(model / "model.safetensors"), load_file(artifact[0] / "model.safetensors")
    quantized = {name.removesuffix(".qweight") for name in after if name.endswith(".qweight")}
    assert len(quantized) == 2 * 7
    expected = {name for name in before if name.removesuffix(".weight") not in quantized}
    expected |= {f"{linear}.{part}" for linear in quantized for part in ("qweight", "qzeros", "scales", "g_idx")}
    assert after.keys() == expected
    kept = before.keys() & after.keys()
    assert "model.layers.0.self_attn.q_proj.bias" in kept
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in kept)


def test_stored_weights_are_near_the_models(model: Path, artifact: tuple[Path, Any]) -> None:
    before, after = load_file(model / "model.safetensors"), load_file(artifact[0] / "model.safetensors")
    for name in (name.removesuffix(".qweight") for name in after if name.endswith(".qweight")):
        stored = {part: after[f"{name}.{part}"] for part in ("qweight", "qzeros", "scales", "g_idx")}
        W = before[f"{name}.weight"].float()
        assert float((dequantize_stored(stored, 4) - W).norm() / W.norm()) < 0.2  # 4 bits, with error feedback


def test_the_config_says_what_loaders_need(model: Path, artifact: tuple[Path, Any]) -> None:
    config = json.loads((artifact[0] / "config.json").read_text())
    quantization = config.pop("quantization_config")
    assert config == json.loads((model / "config.json").read_text())
    assert quantization == json.loads((artifact[0] / "quantize_config.json").read_text())
    assert {
        "quant_method": "gptq", "checkpoint_format": "gptq", "bits": 4, "group_size": 32, "sym": True,
        "desc_act": False, "damp_percent": 0.01, "lm_head": False, "pack_dtype": "int32",
    }.items() <= quantization.items()  # fmt: skip
    assert quantization["meta"]["quantizer"] == ["lf-export:0.1.0"]


def test_companions_come_along(model: Path, artifact: tuple[Path, Any]) -> None:
    for name in ("tokenizer.json", "generation_config.json", "LICENSE"):
        assert (artifact[0] / name).read_bytes() == (model / name).read_bytes()


def test_facts_state_each_linears_error_against_roundings(artifact: tuple[Path, dict[str, Any]]) -> None:
    facts = artifact[1]
    assert facts["scheme"] == "W4A16"
    assert facts["options"]["group_size"] == 32
    assert len(facts["linears"]) == 14
    assert facts["error"] < facts["rtn_error"]
    for linear in facts["linears"].values():
        assert linear["method"] in {"gptq", "rtn"}
        assert linear["judged_on"] == "held-out"
        assert linear["error"] <= linear["rtn_error"]
    json.dumps(facts)


def test_the_size_is_known_before_anything_is_written(model: Path, artifact: tuple[Path, Any]) -> None:
    size = FORMAT.size(open_checkpoint(model), GptqOptions(group_size=32))
    data = (artifact[0] / "model.safetensors").read_bytes()
    assert size == len(data) - 8 - int.from_bytes(data[:8], "little")


def test_a_target_keeps_no_weights_of_the_layers_that_it_has_written(model: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(model)
    target = FORMAT.open(checkpoint, tmp_path, GptqOptions(), "")
    seen: list[int] = []

    class Watched:
        needs_moments = True

        def layer(self, view: Any) -> None:
            target.layer(view)
            gc.collect()
            seen.append(sum(1 for thing in gc.get_objects() if type(thing) is torch.Tensor))

    walk(checkpoint, DATA, [Watched()])
    target.finish()
    assert seen[1] <= seen[0]


@pytest.mark.parametrize(
    "options",
    [
        {"bits": 8, "group_size": -1},
        {"bits": 4, "sym": False, "group_size": 16},
        {"bits": 3, "group_size": 32},
        {"bits": 2, "group_size": 16, "sym": False},
        {"desc_act": True, "group_size": 32},
        {"act_order": False, "clip_search": False, "damp_percent": 0.1},
    ],
    ids=str,
)
def test_every_way_to_quantize_beats_rounding(model: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    facts = write(open_checkpoint(model), tmp_path / "out", **options)
    assert facts["error"] < facts["rtn_error"]
    stored = load_file(tmp_path / "out" / "model.safetensors")["model.layers.0.mlp.down_proj.g_idx"].tolist()
    assert (stored == sorted(stored)) is not options.get("desc_act", False)


def test_widths_that_cannot_be_packed_are_named(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "model", tokenizer=False, intermediate_size=100)
    with pytest.raises(InputError, match=r"down_proj.weight: \[64, 100\] cannot be packed at 4 bits.*multiples of 8"):
        FORMAT.open(open_checkpoint(folder), tmp_path, GptqOptions(group_size=-1), "")


def test_a_checkpoint_that_lacks_a_linear_is_refused(model: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(model)
    checkpoint.config["num_hidden_layers"] = 3
    with pytest.raises(InputError, match=r"no tensor 'model\.layers\.2\.self_attn\.q_proj\.weight'"):
        FORMAT.open(checkpoint, tmp_path, GptqOptions(), "")


def test_calibration_that_beats_rounding_nowhere_fails_the_target(model: Path, tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"beat rounding to nearest in no linear .*only 1 tokens for a width of 64"):
        write(open_checkpoint(model), tmp_path / "out", random_data([1]))


@pytest.mark.parametrize(
    "options", [{"bits": 5}, {"group_size": 0}, {"group_size": -2}, {"damp_percent": 0}, {"groupsize": 64}], ids=str
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        GptqOptions(**options)
