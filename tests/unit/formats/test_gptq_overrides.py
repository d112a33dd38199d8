"""Linears that deviate: which scheme each takes, what the folder says of them, and that every reader of ours agrees."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from models import tiny_model
from safetensors.torch import load_file
from walk_data import random_data

from lf_export.checkpoint.index import open_checkpoint
from lf_export.checkpoint.packed import PackedTensor
from lf_export.errors import InputError
from lf_export.formats.gptq import FORMAT, GptqOptions
from lf_export.formats.gptq_options import choices_of
from lf_export.quant import solve
from lf_export.quant.pack import STORED, dequantize_stored
from lf_export.runtimes import runtime
from lf_export.steps.dequantize import dequantized
from lf_export.steps.inspect import inspect_path
from lf_export.walk.stream import walk

DATA = random_data([40, 30, 50, 60, 20, 45, 38, 70] * 2)
OVERRIDES = {
    "*.down_proj": {"bits": 8},
    "model.layers.0.self_attn.*": {"skip": True},
    "model.layers.1.self_attn.*": {"bits": 3, "group_size": 16},
    "*.1.self_attn.o_proj": {"bits": 2},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("overrides") / "model")


@pytest.fixture(scope="module")
def artifact(model: Path) -> tuple[Path, dict[str, Any]]:
    out = model.parent / "gptq"
    out.mkdir()
    options = GptqOptions(group_size=32, overrides=OVERRIDES)
    target = FORMAT.open(open_checkpoint(model), out, options, DATA.digest)
    walk(open_checkpoint(model), DATA, [target], dtype=torch.float32)
    return out, target.finish()


def _found(model: Path, overrides: Any, **options: Any) -> dict[str, tuple[int, int]]:
    _, choices = choices_of(open_checkpoint(model), GptqOptions(overrides=overrides, **options))
    return {name.removeprefix("model.layers."): (each.bits, each.group_size) for name, (each,) in choices.items()}


def test_the_last_pattern_that_matches_wins_key_by_key(model: Path) -> None:
    overrides = {"*.q_proj": {"bits": 8, "group_size": 16}, "*.0.*": {"bits": 3}, "*.1.*": {"skip": True}}
    found = _found(model, overrides, group_size=32)
    assert found["0.self_attn.q_proj"] == (3, 16)
    assert found["0.mlp.up_proj"] == (3, 32)
    assert not [name for name in found if name.startswith("1.")]
    turned = _found(model, dict(reversed(overrides.items())) | {"*.1.mlp.*": {"skip": False}}, group_size=32)
    assert turned["0.self_attn.q_proj"] == (8, 16)
    assert turned["1.mlp.up_proj"] == (4, 32)


def test_auto_does_not_look_at_what_is_skipped_or_has_a_group_size_of_its_own(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "m", intermediate_size=144, tokenizer=False)
    assert _found(model, {})["0.self_attn.q_proj"] == (4, 16)
    assert _found(model, {"*.down_proj": {"skip": True}})["0.self_attn.q_proj"] == (4, 64)
    found = _found(model, {"*.down_proj": {"group_size": 48}})
    assert (found["0.mlp.down_proj"], found["0.mlp.up_proj"]) == ((4, 48), (4, 64))


@pytest.mark.parametrize(
    ("overrides", "message", "hint"),
    [
        ({"*.downproj": {"bits": 8}}, r"'\*\.downproj' matches no linear", "did you mean '*.down_proj'?"),
        ({"model.layers.7.*": {"bits": 8}}, "matches no linear", "did you mean 'model.layers.1.*'?"),
        ({"*.q_proj.weight": {"bits": 8}}, "matches no linear", "did you mean '*.q_proj'?"),
        ({"*.q_proj": {"group_size": 48}}, r"group_size 48 does not divide the input width 64 \(model", "group_size"),
        ({"*": {"skip": True}}, "every linear is skipped", "None"),
    ],
    ids=str,
)
def test_overrides_that_cannot_be_are_refused_before_anything_is_written(
    model: Path, tmp_path: Path, overrides: Any, message: str, hint: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        FORMAT.open(open_checkpoint(model), tmp_path, GptqOptions(overrides=overrides), "")
    assert hint in str(caught.value.hint)
    assert not list(tmp_path.iterdir())


def test_packing_is_checked_for_each_linears_own_bits(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "m", intermediate_size=144, tokenizer=False)
    with pytest.raises(InputError, match=r"0\.mlp\.up_proj\.weight: \[144, 64\] cannot be packed at 3 bits"):
        _found(model, {"*.up_proj": {"bits": 3}})
    assert _found(model, {"*.q_proj": {"bits": 3}})["0.self_attn.q_proj"] == (3, 16)


def test_skipped_linears_are_copied_and_the_others_have_their_own_shapes(
    model: Path, artifact: tuple[Path, dict[str, Any]]
) -> None:
    before, after = load_file(model / "model.safetensors"), load_file(artifact[0] / "model.safetensors")
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        skipped = f"model.layers.0.self_attn.{name}.weight"
        assert torch.equal(before[skipped], after[skipped])
        assert after[f"model.layers.1.self_attn.{name}.scales"].shape[0] == 64 // 16
    assert after["model.layers.1.self_attn.o_proj.qweight"].shape == (64 * 2 // 32, 64)
    assert after["model.layers.0.mlp.down_proj.qweight"].shape == (128 * 8 // 32, 64)
    size = FORMAT.size(open_checkpoint(model), GptqOptions(group_size=32, overrides=OVERRIDES))
    data = (artifact[0] / "model.safetensors").read_bytes()
    assert size == len(data) - 8 - int.from_bytes(data[:8], "little")


def test_the_config_names_each_module_that_deviates_and_the_fused_one(artifact: tuple[Path, dict[str, Any]]) -> None:
    config = json.loads((artifact[0] / "config.json").read_text())["quantization_config"]
    attention = {"bits": 3, "group_size": 16}
    layer = r"model\.layers\.1\.self_attn"
    assert config["dynamic"] == {
        **{rf"-:^model\.layers\.0\.self_attn\.{name}_proj$": {} for name in ("q", "k", "v", "qkv", "o")},
        **{rf"+:^{layer}\.{name}_proj$": attention for name in ("q", "k", "v", "qkv")},
        rf"+:^{layer}\.o_proj$": {"bits": 2, "group_size": 16},
        **{rf"+:^model\.layers\.{index}\.mlp\.down_proj$": {"bits": 8, "group_size": 32} for index in (0, 1)},
    }
    assert config["bits"] == 4
    assert config == json.loads((artifact[0] / "quantize_config.json").read_text())


def test_a_folder_without_deviations_has_no_such_keys(model: Path, tmp_path: Path) -> None:
    target = FORMAT.open(open_checkpoint(model), tmp_path, GptqOptions(overrides={"*.q_proj": {"bits": 4}}), "")
    walk(open_checkpoint(model), DATA, [target], dtype=torch.float32)
    facts = target.finish()
    config = json.loads((tmp_path / "quantize_config.json").read_text())
    assert not {"dynamic", "modules_in_block_to_quantize"} & config.keys()
    assert "loads_in" not in facts


def test_the_manifest_says_what_deviates_and_who_loads_it(artifact: tuple[Path, dict[str, Any]]) -> None:
    facts = artifact[1]
    assert facts["linears"]["model.layers.1.self_attn.q_proj"]["bits"] == 3
    assert facts["linears"]["model.layers.1.self_attn.q_proj"]["group_size"] == 16
    assert "bits" not in facts["linears"]["model.layers.0.mlp.up_proj"]
    assert facts["skipped"] == [f"model.layers.0.self_attn.{name}_proj" for name in "qkvo"]
    assert facts["loads_in"]["transformers"].startswith("no: it does not hand `dynamic` on")


def test_parts_of_a_fused_linear_that_differ_are_said_not_to_load_in_vllm(model: Path, tmp_path: Path) -> None:
    options = GptqOptions(overrides={"*.0.*.v_proj": {"group_size": 32}})
    target = FORMAT.open(open_checkpoint(model), tmp_path, options, "")
    walk(open_checkpoint(model), DATA, [target], dtype=torch.float32)
    said = target.finish()["loads_in"]["vllm"]
    assert said.startswith("no: it runs model.layers.0.self_attn.q_proj, ")
    assert "qkv_proj" not in (tmp_path / "config.json").read_text()


def test_every_reader_of_ours_takes_the_bits_from_the_shapes(model: Path, artifact: tuple[Path, Any]) -> None:
    folder = artifact[0]
    stored = load_file(folder / "model.safetensors")
    choices = choices_of(open_checkpoint(model), GptqOptions(group_size=32, overrides=OVERRIDES))[1]
    session = runtime("torch").open_session(folder, 1)
    state = session._model.state_dict()
    base = dequantized(open_checkpoint(folder))
    for name, (scheme,) in choices.items():
        W = dequantize_stored({part: stored[f"{name}.{part}"] for part in STORED}, scheme.bits)
        assert torch.equal(state[f"{name}.weight"], W)
        info = base.info(f"{name}.weight")
        assert isinstance(info, PackedTensor)
        assert torch.equal(info.unpack()(0, info.shape[0]), W)
    assert inspect_path(folder)["parameters"] == inspect_path(model)["parameters"]


def test_shapes_that_are_no_width_are_refused_by_name(artifact: tuple[Path, Any], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    tensors = load_file(artifact[0] / "model.safetensors")
    name = "model.layers.0.mlp.down_proj"
    tensors[f"{name}.qweight"] = tensors[f"{name}.qweight"][:20].contiguous()
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text((artifact[0] / "config.json").read_text())
    with pytest.raises(InputError, match=r"down_proj\.qweight: 20 words for 128 inputs"):
        dequantized(open_checkpoint(tmp_path))
    with pytest.raises(InputError, match=r"down_proj\.qweight: 20 words for 128 inputs"):
        runtime("torch").open_session(tmp_path, 1)


def test_schemes_that_differ_in_bits_and_groups_share_one_factor(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    real = solve.factorize

    def counted(H: torch.Tensor, *rest: Any) -> Any:
        made.append(H.shape[0])
        return real(H, *rest)

    monkeypatch.setattr(solve, "factorize", counted)
    overrides = {"*.q_proj": {"bits": 8}, "*.k_proj": {"group_size": 16}, "*.v_proj": {"bits": 3}}
    target = FORMAT.open(open_checkpoint(model), tmp_path, GptqOptions(overrides=overrides), "")
    walk(open_checkpoint(model), DATA, [target], dtype=torch.float32)
    assert len(made) == 2 * 4


def test_the_order_of_overrides_is_part_of_what_a_recipe_says() -> None:
    from lf_export.recipe import GptqTarget
    from lf_export.steps.record import step_digest

    given = {"*.q_proj": {"bits": 8}, "*.0.*": {"bits": 3}}
    one, other = (
        GptqTarget.model_validate({"format": "gptq", "overrides": overrides}).model_dump()
        for overrides in (given, dict(reversed(given.items())))
    )
    assert one["overrides"] == [["*.q_proj", {"bits": 8}], ["*.0.*", {"bits": 3}]]
    assert step_digest("quantize", one, []) != step_digest("quantize", other, [])
    del one["format"]
    assert GptqOptions.model_validate(one).overrides[0][0] == "*.q_proj"
