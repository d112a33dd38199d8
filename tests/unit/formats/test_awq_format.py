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
from lf_export.formats import awq_layers as module
from lf_export.formats.awq import FORMAT
from lf_export.formats.awq_plan import AwqOptions
from lf_export.quant import awq_solve, dequantize_awq
from lf_export.runtimes import runtime
from lf_export.walk.stream import walk

DATA = random_data([40, 30, 50, 60, 20, 45, 38, 70] * 2)
PARTS = ("qweight", "qzeros", "scales")
IDS = list(range(5, 60))


def write(checkpoint: Checkpoint, out: Path, data: RandomData = DATA, **options: Any) -> dict[str, Any]:
    out.mkdir()
    target = FORMAT.open(checkpoint, out, AwqOptions(**options), data.digest)
    walk(checkpoint, data, [target], dtype=torch.float32)
    return target.finish()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("awq") / "model", "qwen2", dtype=torch.bfloat16)


@pytest.fixture(scope="module")
def artifact(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("artifact") / "awq"
    return out, write(open_checkpoint(model), out, group_size=32)


def test_the_table_has_the_format_under_its_own_name() -> None:
    assert FORMATS["awq"] is FORMAT
    assert FORMAT.schemes["W4A16"] == {"bits": 4}


def test_quantized_linears_and_everything_else_are_all_there(model: Path, artifact: tuple[Path, Any]) -> None:
    before, after = load_file(model / "model.safetensors"), load_file(artifact[0] / "model.safetensors")
    quantized = {name.removesuffix(".qweight") for name in after if name.endswith(".qweight")}
    assert len(quantized) == 2 * 7
    expected = {name for name in before if name.removesuffix(".weight") not in quantized}
    assert after.keys() == expected | {f"{linear}.{part}" for linear in quantized for part in PARTS}
    kept = before.keys() & after.keys()
    assert all(before[name].dtype == after[name].dtype for name in kept)
    changed = {name for name in kept if not torch.equal(before[name], after[name])}
    folded = ("input_layernorm.weight", "post_attention_layernorm.weight", "v_proj.bias")
    assert changed
    assert all(name.endswith(folded) for name in changed)


def test_the_config_says_what_loaders_need(model: Path, artifact: tuple[Path, Any]) -> None:
    config = json.loads((artifact[0] / "config.json").read_text())
    quantization = config.pop("quantization_config")
    assert config == json.loads((model / "config.json").read_text())
    assert {
        "quant_method": "awq", "version": "gemm", "bits": 4, "group_size": 32, "zero_point": True,
        "modules_to_not_convert": ["lm_head"],
    }.items() <= quantization.items()  # fmt: skip
    assert quantization["meta"]["quantizer"] == ["lf-export:0.1.0"]


def test_companions_come_along(model: Path, artifact: tuple[Path, Any]) -> None:
    for name in ("tokenizer.json", "generation_config.json", "LICENSE"):
        assert (artifact[0] / name).read_bytes() == (model / name).read_bytes()


def test_facts_state_each_linears_error_against_roundings(artifact: tuple[Path, dict[str, Any]]) -> None:
    facts = artifact[1]
    assert (facts["scheme"], facts["options"]["group_size"]) == ("W4A16", 32)
    names = list(facts["linears"])
    assert len(names) == 14
    assert names == sorted(names, key=lambda name: int(name.split(".")[2]))
    assert names[:2] == ["model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj"]
    assert facts["error"] < facts["rtn_error"]
    for linear in facts["linears"].values():
        assert linear["method"] in {"awq", "clip", "rtn"}
        assert linear["judged_on"] == "held-out"
        assert ("exponent" in linear) == (linear["method"] == "awq")
    json.dumps(facts)


def test_the_size_is_known_before_anything_is_written(model: Path, artifact: tuple[Path, Any]) -> None:
    data = (artifact[0] / "model.safetensors").read_bytes()
    size = FORMAT.size(open_checkpoint(model), AwqOptions(group_size=32))
    assert size == len(data) - 8 - int.from_bytes(data[:8], "little")


@pytest.mark.parametrize(
    ("family", "overrides"),
    [
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("llama", {"num_key_value_heads": 4}),
        ("mistral", {}),
        ("qwen2", {}),
        ("qwen3", {}),
        ("phi3", {}),
        ("gemma3_text", {}),
    ],
    ids=str,
)
def test_folding_changes_nothing_of_the_model(
    family: str, overrides: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    base = tiny_model(tmp_path / "model", family, dtype=torch.bfloat16, tokenizer=False, **overrides)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:  # norms and biases of their own, so that folding has something to round
                parameter.add_(torch.randn_like(parameter) * 0.3)
            if "layers.0" in name and parameter.ndim == 2:
                parameter.mul_(torch.exp(0.5 * torch.randn(1, parameter.shape[1])))
    model.save_pretrained(base)
    # scaled weights are kept as they are before they are rounded, and every group is scaled
    kept: list[dict[str, torch.Tensor]] = []
    scaled: dict[tuple[int, ...], torch.Tensor] = {}
    real = awq_solve.quantize_scaled

    def seen(W: torch.Tensor, H: torch.Tensor, s: torch.Tensor | None, scheme: Any) -> Any:
        scaled["last"] = W if s is None else W * s  # type: ignore[index]
        return real(W, H, s, scheme)

    monkeypatch.setattr(awq_solve, "quantize_scaled", seen)
    real_solve = module.quantize_awq

    def solved(weights: dict[str, torch.Tensor], *rest: Any) -> Any:
        group = real_solve(weights, *rest)
        rows = [len(weight) for weight in weights.values()]
        kept.append(dict(zip(weights, scaled["last"].split(rows), strict=True)))  # type: ignore[index]
        return group

    monkeypatch.setattr(module, "quantize_awq", solved)
    facts = write(open_checkpoint(base), tmp_path / "out", group_size=32)
    assert sum("exponent" in linear for linear in facts["linears"].values()) >= len(facts["linears"]) // 2
    stored = load_file(tmp_path / "out" / "model.safetensors")
    state = {name: tensor.float() for name, tensor in stored.items() if not name.endswith(PARTS)}
    for index, groups in enumerate((kept[:4], kept[4:])):
        for group in groups:
            state |= {f"model.layers.{index}.{name}.weight": weight for name, weight in group.items()}
    ids = torch.tensor([IDS])
    with torch.no_grad():
        before = model.float()(ids).logits
        problems = model.load_state_dict(state, strict=False)
        assert problems.unexpected_keys == []
        assert set(problems.missing_keys) <= {"lm_head.weight"}
        after = model(ids).logits
    assert any(
        not torch.equal(state[name], tensor.float())
        for name, tensor in load_file(base / "model.safetensors").items()
        if name in state
    )
    # fp32 products of weights that were divided and multiplied: seen 2e-6 of the spread
    assert float((after - before).abs().max() / before.std()) < 2e-5


def test_the_torch_runtime_answers_as_the_stored_integers_say(
    model: Path, artifact: tuple[Path, dict[str, Any]]
) -> None:
    from transformers import AutoModelForCausalLM

    tensors = load_file(artifact[0] / "model.safetensors")
    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            linear = name.removesuffix(".weight")
            if f"{linear}.qweight" in tensors:
                parameter.copy_(dequantize_awq({part: tensors[f"{linear}.{part}"] for part in PARTS}))
            elif name in tensors:
                parameter.copy_(tensors[name])
        expected = plain(torch.tensor([IDS])).logits[0, :-1].numpy()
    session = runtime("torch").open_session(artifact[0], 1)
    (logits,) = session.score(IDS[:1], [IDS[1:]], [0])
    assert session.representative is False
    torch.testing.assert_close(torch.from_numpy(logits), torch.from_numpy(expected), rtol=0, atol=1e-4)


@pytest.mark.parametrize("options", [{"group_size": -1}, {"scale_search": False}, {"clip_search": False}], ids=str)
def test_every_way_to_quantize_beats_rounding(model: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    facts = write(open_checkpoint(model), tmp_path / "out", **{"group_size": 16, **options})
    assert facts["error"] < facts["rtn_error"]
    methods = {linear["method"] for linear in facts["linears"].values()}
    assert ("awq" in methods) == options.get("scale_search", True)


def test_widths_that_cannot_be_packed_are_named(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "model", tokenizer=False, intermediate_size=100)
    with pytest.raises(InputError, match=r"gate_proj.weight: 100 outputs cannot be packed, expected a multiple of 8"):
        FORMAT.open(open_checkpoint(folder), tmp_path, AwqOptions(group_size=-1), "")


def test_calibration_that_beats_rounding_nowhere_fails_the_target(model: Path, tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"not below that of rounding to nearest .*only 1 tokens for a width of 64"):
        write(open_checkpoint(model), tmp_path / "out", random_data([1]))


@pytest.mark.parametrize(
    "options", [{"bits": 8}, {"group_size": 0}, {"zero_point": False}, {"sym": True}, {"groupsize": 64}], ids=str
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AwqOptions(**options)
