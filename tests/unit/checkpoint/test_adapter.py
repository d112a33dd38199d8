"""Opening an adapter: its modules and factors, or every reason why it cannot be merged."""

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lf_export.checkpoint.adapter import open_adapter
from lf_export.errors import InputError

Make = Callable[..., Path]
Tensors = Callable[..., dict[str, torch.Tensor]]
PREFIX = "base_model.model.model.layers.0.self_attn.q_proj"


def test_an_adapter_gives_its_modules_with_factors_and_scaling(make_adapter: Make, lora_tensors: Tensors) -> None:
    adapter = open_adapter(make_adapter())
    assert list(adapter.modules) == ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"]
    module = adapter.modules["model.layers.0.self_attn.q_proj"]
    assert module.weight == "model.layers.0.self_attn.q_proj.weight"
    assert module.shape == (6, 4)
    assert module.scaling == 2.0
    a, b = module.factors(torch.float32)
    assert torch.equal(a, lora_tensors()[f"{PREFIX}.lora_A.weight"])
    assert torch.equal(b, lora_tensors()[f"{PREFIX}.lora_B.weight"])


def test_rslora_and_patterns_reach_the_module(make_adapter: Make, lora_tensors: Tensors) -> None:
    config = {"r": 7, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {r"layers\.1\..*": 3}, "use_rslora": True}
    modules = open_adapter(make_adapter(lora_tensors(), **config)).modules
    assert modules["model.layers.0.self_attn.q_proj"].scaling == 4 / math.sqrt(2)
    assert modules["model.layers.1.self_attn.q_proj"].scaling == 3 / math.sqrt(2)


def test_the_digest_is_of_both_files(make_adapter: Make, lora_tensors: Tensors) -> None:
    first = make_adapter(name="first")
    digests = [
        hashlib.sha256((first / name).read_bytes()).hexdigest()
        for name in ("adapter_config.json", "adapter_model.safetensors")
    ]
    assert open_adapter(first).digest() == hashlib.sha256("".join(digests).encode()).hexdigest()
    other = lora_tensors()
    other[f"{PREFIX}.lora_A.weight"][0, 0] += 1
    assert open_adapter(make_adapter(other, "second")).digest() != open_adapter(first).digest()


def test_every_refused_field_is_named_at_once_with_its_file(make_adapter: Make) -> None:
    folder = make_adapter(kasa_config={"rank": 2}, use_qalora=True, init_lora_weights="pissa")
    with pytest.raises(InputError) as caught:
        open_adapter(folder)
    lines = caught.value.message.splitlines()
    assert len(lines) == 3
    assert all(line.startswith(str(folder / "adapter_config.json")) for line in lines)
    assert "kasa_config is set" in lines[0]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("base_model.model.model.embed_tokens.lora_mystery", "no part of a LoRA"),
        ("base_model.model.model.norm.modules_to_save.weight", "no part of a LoRA"),
        ("base_model.model.score.weight", "no part of a LoRA"),
        ("model.layers.0.self_attn.q_proj.lora_A.weight", "no part of a LoRA"),
        (f"{PREFIX}.base_layer.weight", "no part of a LoRA"),
    ],
)
def test_a_tensor_of_another_kind_is_refused_by_name(
    make_adapter: Make, lora_tensors: Tensors, name: str, says: str
) -> None:
    folder = make_adapter(lora_tensors() | {name: torch.zeros(2, 2)})
    with pytest.raises(InputError) as caught:
        open_adapter(folder)
    assert f"{name}: {says}, and that is not handled" in caught.value.message


@pytest.mark.parametrize(
    ("name", "shape", "config", "says"),
    [
        (f"{PREFIX}.lora_magnitude_vector", (6,), {}, "has a magnitude, and use_dora is false"),
        (f"{PREFIX}.lora_B.bias", (6,), {}, "has a bias, and lora_bias is false"),
        (f"{PREFIX}.lora_B.bias", (5,), {"lora_bias": True}, "[5], [6] was expected"),
        ("", (), {"use_dora": True}, "has no magnitude, and use_dora is true"),
        (f"{PREFIX}.lora_magnitude_vector", (6, 1), {"use_dora": True}, "a float vector was expected"),
        ("base_model.model.model.embed_tokens.lora_embedding_A", (2, 10), {}, "has lora_A alone"),
        (
            "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta",
            (2, 4),
            {"trainable_token_indices": [1, 2, 3]},
            "2 rows, trainable_token_indices names 3 tokens",
        ),
        (
            "base_model.model.lm_head.token_adapter.trainable_tokens_delta",
            (2, 4),
            {"trainable_token_indices": {"embed_tokens": [1, 2]}},
            "2 rows, trainable_token_indices names no tokens",
        ),
    ],
)
def test_parts_that_the_config_does_not_announce_are_refused(
    make_adapter: Make, lora_tensors: Tensors, name: str, shape: tuple[int, ...], config: dict[str, object], says: str
) -> None:
    extra = {name: torch.ones(shape)} if name else {}
    with pytest.raises(InputError) as caught:
        open_adapter(make_adapter(lora_tensors() | extra, **config))
    assert says in caught.value.message


def test_every_part_finds_its_place(make_adapter: Make, lora_tensors: Tensors) -> None:
    embedding = "base_model.model.model.embed_tokens"
    extra = {
        f"{PREFIX}.lora_B.bias": torch.ones(6),
        f"{PREFIX.replace('0', '1')}.lora_B.bias": torch.ones(6),
        f"{embedding}.lora_embedding_A": torch.ones(2, 10),
        f"{embedding}.lora_embedding_B": torch.ones(4, 2),
        f"{embedding}.base_layer.weight": torch.ones(10, 4),
        "base_model.model.lm_head.modules_to_save.weight": torch.ones(10, 4),
        "base_model.model.lm_head.original_module.weight": torch.zeros(10, 4),
        "base_model.model.model.layers.0.input_layernorm.weight": torch.ones(4),
        "base_model.model.lm_head.token_adapter.trainable_tokens_delta": torch.ones(1, 4),
    }
    config = {"lora_bias": True, "modules_to_save": ["norm"], "trainable_token_indices": {"lm_head": [3]}}
    adapter = open_adapter(make_adapter(lora_tensors() | extra, **config))
    modules = adapter.modules
    assert modules["model.embed_tokens"].embedding
    assert modules["model.embed_tokens"].shape == (10, 4)
    assert modules["model.embed_tokens"].bias is None
    assert modules["model.layers.0.self_attn.q_proj"].bias is not None
    assert set(adapter.whole) == {
        "model.embed_tokens.weight",
        "lm_head.weight",
        "model.layers.0.input_layernorm.weight",
    }
    assert set(adapter.tokens) == {"lm_head"}


def test_half_a_module_and_a_wrong_rank_are_named_together(make_adapter: Make, lora_tensors: Tensors) -> None:
    tensors = lora_tensors()
    del tensors[f"{PREFIX}.lora_B.weight"]
    tensors[f"{PREFIX.replace('0', '1')}.lora_A.weight"] = torch.zeros(3, 4)
    with pytest.raises(InputError) as caught:
        open_adapter(make_adapter(tensors))
    assert "model.layers.0.self_attn.q_proj: has lora_A alone" in caught.value.message
    assert "model.layers.1.self_attn.q_proj: A [3, 4] and B [6, 2], but adapter_config.json gives rank 2" in (
        caught.value.message
    )


@pytest.mark.parametrize("bad", [torch.zeros(2, 4, dtype=torch.int8), torch.zeros(8)], ids=["int8", "vector"])
def test_a_factor_that_is_no_float_matrix_is_refused(
    make_adapter: Make, lora_tensors: Tensors, bad: torch.Tensor
) -> None:
    folder = make_adapter(lora_tensors() | {f"{PREFIX}.lora_A.weight": bad})
    with pytest.raises(InputError, match="a float matrix was expected"):
        open_adapter(folder)


@pytest.mark.parametrize("half", ["A", "B"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_infinity_in_a_factor_are_named(
    make_adapter: Make, lora_tensors: Tensors, half: str, value: float
) -> None:
    tensors = lora_tensors()
    tensors[f"{PREFIX}.lora_{half}.weight"][1, 1] = value
    module = open_adapter(make_adapter(tensors)).modules["model.layers.0.self_attn.q_proj"]
    with pytest.raises(InputError, match=rf"lora_{half}\.weight: 1 of \d+ values are NaN or infinite"):
        module.factors(torch.float32)


def test_a_folder_that_is_no_adapter_says_what_it_lacks(make_adapter: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        open_adapter(tmp_path / "nothing")
    folder = make_adapter()
    with pytest.raises(InputError, match="not a folder"):
        open_adapter(folder / "adapter_config.json")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(InputError, match=r"the weights are a pickle \(adapter_model\.bin\)"):
        open_adapter(folder)
    (folder / "adapter_model.bin").unlink()
    with pytest.raises(InputError, match=r"adapter_model\.safetensors: no such file"):
        open_adapter(folder)
    save_file({}, folder / "adapter_model.safetensors")
    with pytest.raises(InputError, match="no adapter tensors"):
        open_adapter(folder)
    (folder / "adapter_config.json").write_text(json.dumps([1]), encoding="utf-8")
    with pytest.raises(InputError, match="a JSON object was expected"):
        open_adapter(folder)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(InputError, match=r"has an adapter_config\.json"):
        open_adapter(folder)
