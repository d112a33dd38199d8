import json
from pathlib import Path
from typing import Any

import pytest
import torch
from models import starved_model, tiny_model
from safetensors.torch import load_file, save_file
from said import Said
from walk_data import random_data

from lf_export import progress
from lf_export.checkpoint.index import open_checkpoint
from lf_export.errors import InputError
from lf_export.formats import FORMATS
from lf_export.formats.gptq import FORMAT, GptqOptions
from lf_export.quant import dequantize_stored
from lf_export.quant.pack import STORED
from lf_export.runtimes import runtime
from lf_export.walk.stream import walk

DATA = random_data([40, 30, 50, 60, 20, 45, 38, 70] * 2)
BLOCK = {"mixtral": "block_sparse_moe", "qwen3_moe": "mlp"}
LINEARS = {"mixtral": ("w1", "w3", "w2"), "qwen3_moe": ("gate_proj", "up_proj", "down_proj")}


@pytest.fixture(scope="module", params=BLOCK)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("moe") / "model", family, dtype=torch.bfloat16)


def write(folder: Path, out: Path, **options: Any) -> dict[str, Any]:
    checkpoint = open_checkpoint(folder)
    out.mkdir()
    target = FORMAT.open(checkpoint, out, GptqOptions(**options), DATA.digest)
    walk(checkpoint, DATA, [target], dtype=torch.float32)
    return target.finish()


@pytest.fixture(scope="module")
def artifact(model: Path) -> tuple[Path, dict[str, Any]]:
    out = model.parent / "gptq"
    return out, write(model, out, group_size=32)


def test_every_linear_of_every_expert_is_stored_under_its_name_in_the_checkpoint(
    family: str, model: Path, artifact: tuple[Path, Any]
) -> None:
    before, after = load_file(model / "model.safetensors"), load_file(artifact[0] / "model.safetensors")
    quantized = {name.removesuffix(".qweight") for name in after if name.endswith(".qweight")}
    experts = {f"{BLOCK[family]}.experts.{number}.{name}" for number in range(4) for name in LINEARS[family]}
    attention = {f"self_attn.{name}_proj" for name in "qkvo"}
    assert quantized == {f"model.layers.{index}.{name}" for index in range(2) for name in experts | attention}
    assert {name for name in before if name.removesuffix(".weight") not in quantized} <= after.keys()
    router = f"model.layers.0.{BLOCK[family]}.gate.weight"
    assert torch.equal(after[router], before[router])
    assert after[router].dtype == torch.bfloat16
    for name in quantized:
        W = before[f"{name}.weight"].float()
        stored = dequantize_stored({part: after[f"{name}.{part}"] for part in STORED}, 4)
        assert float((stored - W).norm() / W.norm()) < 0.2  # 4 bits, with error feedback


def test_the_config_says_that_the_router_is_not_quantized(family: str, artifact: tuple[Path, Any]) -> None:
    import re

    config = json.loads((artifact[0] / "config.json").read_text())["quantization_config"]
    (pattern,) = config["dynamic"]
    assert pattern.startswith("-:")
    for name in {"mlp", BLOCK[family]}:
        assert re.match(pattern.removeprefix("-:"), f"model.layers.1.{name}.gate")
    for name in ("mlp.gate_proj", "mlp.experts.0.gate_proj", "self_attn.q_proj"):
        assert not re.match(pattern.removeprefix("-:"), f"model.layers.1.{name}")


def test_the_manifest_says_how_many_tokens_experts_saw(artifact: tuple[Path, dict[str, Any]]) -> None:
    facts = artifact[1]
    experts = facts["experts"]
    assert (experts["count"], experts["per_token"]) == (4, 2)
    assert experts["fewest_tokens"] > 0
    assert experts["too_few_tokens"] == {}
    assert facts["error"] < facts["rtn_error"]
    assert len(facts["linears"]) == 2 * (4 + 4 * 3)
    json.dumps(facts)


def test_the_torch_runtime_runs_what_is_stored(model: Path, artifact: tuple[Path, Any], tmp_path: Path) -> None:
    """Against transformers' own loading of the dequantized weights under their names in the checkpoint."""
    from transformers import AutoModelForCausalLM

    stored = load_file(artifact[0] / "model.safetensors")
    plain = {name: tensor.float() for name, tensor in stored.items() if name.rpartition(".")[2] not in STORED}
    for stem in (name.removesuffix(".qweight") for name in stored if name.endswith(".qweight")):
        plain[f"{stem}.weight"] = dequantize_stored({part: stored[f"{stem}.{part}"] for part in STORED}, 4).contiguous()
    save_file(plain, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_bytes((model / "config.json").read_bytes())
    ids = list(range(5, 45))
    with torch.no_grad():
        reference = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
        expected = reference(torch.tensor([ids]), use_cache=False).logits[0]
    session = runtime("torch").open_session(artifact[0], 1)
    found = torch.from_numpy(session.score((), [ids], [1])[0])
    session.close()
    assert float((found - expected[: len(found)]).abs().max()) < 1e-5 * float(expected.std())


def test_an_expert_that_no_token_is_sent_to_is_named_and_falls_back(family: str, tmp_path: Path) -> None:
    folder = starved_model(tmp_path / "model", family)
    gate, up, down = LINEARS[family]
    said = Said()
    with progress.reporting(said):
        facts = write(folder, tmp_path / "gptq", group_size=32)
    prefix = f"model.layers.0.{BLOCK[family]}"
    named = facts["experts"]["too_few_tokens"]
    assert set(named) == {f"{prefix}.experts.0.{name}" for name in LINEARS[family]}
    assert facts["experts"]["fewest_tokens"] == 0
    for name in (gate, up):
        linear = facts["linears"][f"{prefix}.experts.0.{name}"]
        assert linear["method"] == "gptq"
        assert linear["pooled"] == "only 0 tokens for a width of 64, expected 4"
        assert linear["judged_on"] == "held-out"
        assert linear["error"] < linear["rtn_error"]
        assert named[f"{prefix}.experts.0.{name}"].endswith("calibrated on the tokens of all experts of the layer")
    linear = facts["linears"][f"{prefix}.experts.0.{down}"]
    assert linear["method"] == "rtn"
    assert linear["judged_on"] == "weights"
    assert 0 < linear["error"] == linear["rtn_error"]
    assert named[f"{prefix}.experts.0.{down}"].endswith(": rounded to nearest")
    assert f"{prefix}.experts.0.{down}" in facts["fallbacks"]
    (line,) = [line for line in said.lines if "too few calibration tokens" in line]
    assert line == (
        f"{prefix}: too few calibration tokens were sent to 1 of 4 experts: "
        f"0 ({gate}, {up} calibrated on the tokens of all experts of the layer; {down} rounded to nearest)"
    )
    assert not any(f"experts.0.{down}" in line for line in said.lines if line.startswith("model.layers.0."))


def test_what_cannot_be_made_of_experts_is_refused_by_name(family: str, model: Path) -> None:
    checkpoint = open_checkpoint(model)
    with pytest.raises(InputError, match=rf"4.25 bits is not offered for {family}, a mixture of experts"):
        FORMAT.size(checkpoint, GptqOptions(bits=4.25))
    with pytest.raises(InputError, match=rf"awq is not offered for {family}, a mixture of experts"):
        FORMATS["awq"].size(checkpoint, FORMATS["awq"].options())
    with pytest.raises(InputError, match=f"onnx: model_type '{family}' is not offered"):
        FORMATS["onnx"].size(checkpoint, FORMATS["onnx"].options())


def test_a_snapshot_carries_which_experts_are_starved(family: str, tmp_path: Path) -> None:
    folder = starved_model(tmp_path / "model", family)
    checkpoint = open_checkpoint(folder)
    (tmp_path / "out").mkdir()
    target = FORMAT.open(checkpoint, tmp_path / "out", GptqOptions(group_size=32), "")
    walk(checkpoint, DATA, [target], dtype=torch.float32)
    other = FORMAT.open(checkpoint, tmp_path / "out", GptqOptions(group_size=32), "")
    other.restore(target.snapshot())
    assert other.finish()["experts"] == target.finish()["experts"]
