"""Our streamed merge against PEFT's merge_and_unload: the same bits, for every dtype, kind and layout."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from models import tiny_adapter, tiny_model
from peft_merge import DTYPES, assert_same_bits, our_merge, peft_merge, saved_tensors

from lf_export.checkpoint.index import open_checkpoint
from lf_export.checkpoint.merge import MergeFacts


def same_as_peft(tmp_path: Path, dtype: torch.dtype, base: dict[str, Any], *adapters: dict[str, Any]) -> MergeFacts:
    model = tiny_model(tmp_path / "base", dtype=dtype, tokenizer=False, **base)
    folders = [
        tiny_adapter(tmp_path / f"adapter{seed}", model, seed=seed, **config) for seed, config in enumerate(adapters, 1)
    ]
    facts = our_merge(model, folders, tmp_path / "ours")
    theirs = peft_merge(model, folders, tmp_path / "theirs", dtype)
    assert_same_bits(saved_tensors(tmp_path / "ours"), theirs)
    changed = {name: tensor for name, tensor in open_checkpoint(model).tensors.items() if name in facts.changed}
    assert any(
        not torch.equal(open_checkpoint(model).read(name).view(torch.uint8), theirs[name].view(torch.uint8))
        for name in changed
    ), "the adapter changed nothing, so this test compares nothing"
    return facts


@pytest.mark.parametrize("rslora", [False, True], ids=["lora", "rslora"])
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_lora_and_rslora_are_peft_bit_for_bit(tmp_path: Path, dtype: torch.dtype, rslora: bool) -> None:
    facts = same_as_peft(tmp_path, dtype, {}, {"r": 3, "lora_alpha": 7, "use_rslora": rslora})
    assert len(facts.changed) == 14
    assert facts.max_deviation <= facts.max_deviation_bound


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_wide_layers_in_several_row_blocks_are_peft_bit_for_bit(
    tmp_path: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lf_export.checkpoint.rows._BLOCK_ELEMENTS", 1 << 12)  # blocks of 64 rows, remainders too
    base = {"hidden_size": 192, "intermediate_size": 500, "num_hidden_layers": 1, "head_dim": 48}
    same_as_peft(tmp_path, dtype, base, {"r": 16, "lora_alpha": 20})


def test_sharded_base_keeps_its_shards_and_is_peft_bit_for_bit(tmp_path: Path) -> None:
    facts = same_as_peft(tmp_path, torch.bfloat16, {"shard_size": "60KB"}, {})
    assert len(facts.files) > 2
    index = json.loads((tmp_path / "ours" / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert index["weight_map"] == open_checkpoint(tmp_path / "base").index["weight_map"]  # type: ignore[index]


def test_untied_base_with_an_adapter_on_the_output_layer_is_peft_bit_for_bit(tmp_path: Path) -> None:
    base = {"tie_word_embeddings": False}
    facts = same_as_peft(tmp_path, torch.bfloat16, base, {"target_modules": ["q_proj", "lm_head"]})
    assert "lm_head.weight" in facts.changed


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_several_adapters_round_after_each_like_peft(tmp_path: Path, dtype: torch.dtype) -> None:
    same_as_peft(tmp_path, dtype, {}, {"r": 4}, {"r": 8, "use_rslora": True}, {"target_modules": ["v_proj"]})


@pytest.mark.parametrize("family", ["mistral", "qwen2", "qwen3", "gemma3_text"])
def test_other_families_are_peft_bit_for_bit(tmp_path: Path, family: str) -> None:
    same_as_peft(tmp_path, torch.bfloat16, {"family": family}, {})


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_the_attention_of_mixtures_of_experts_is_peft_bit_for_bit(tmp_path: Path, family: str) -> None:
    targets = {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}  # PEFT finds no linears in the experts
    assert len(same_as_peft(tmp_path, torch.bfloat16, {"family": family}, targets).changed) == 8


@pytest.mark.parametrize(
    "config",
    [
        {"rank_pattern": {"q_proj": 2, "layers.1.mlp.down_proj": 6}, "alpha_pattern": {"^model.layers.0.*v_proj": 3}},
        {"target_modules": r".*\.(q_proj|down_proj)", "use_rslora": True, "rank_pattern": {r"layers\.1\..*": 5}},
        {"layers_to_transform": [1], "layers_pattern": "layers"},
        {"exclude_modules": ["model.layers.0.self_attn.q_proj"]},
        {"target_modules": "all-linear"},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": "orthogonal"},
        {"init_lora_weights": "mica"},
    ],
    ids=["patterns", "regex", "layers", "exclude", "all-linear", "gaussian", "orthogonal", "mica"],
)
def test_configs_that_select_or_scale_are_peft_bit_for_bit(tmp_path: Path, config: dict[str, Any]) -> None:
    same_as_peft(tmp_path, torch.float32, {}, config)


def test_an_adapter_stored_in_bfloat16_is_peft_bit_for_bit(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = tiny_model(tmp_path / "base", dtype=torch.bfloat16, tokenizer=False)
    adapter = tiny_adapter(tmp_path / "adapter", model)
    file = adapter / "adapter_model.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    our_merge(model, [adapter], tmp_path / "ours")
    assert_same_bits(
        saved_tensors(tmp_path / "ours"), peft_merge(model, [adapter], tmp_path / "theirs", torch.bfloat16)
    )


@pytest.mark.parametrize(
    ("stored", "asked", "wide"),
    [
        ("float32", "bfloat16", torch.float32),
        ("bfloat16", "float32", torch.float32),
        ("float16", "bfloat16", torch.float32),
        ("float32", "float16", torch.float32),
    ],
)
def test_another_dtype_is_peft_in_the_wider_one_then_cast(
    tmp_path: Path, stored: str, asked: str, wide: torch.dtype
) -> None:
    model = tiny_model(tmp_path / "base", dtype=DTYPES[stored], tokenizer=False)
    adapters = [tiny_adapter(tmp_path / f"adapter{seed}", model, seed=seed) for seed in (1, 2)]
    facts = our_merge(model, adapters, tmp_path / "ours", asked)
    theirs = peft_merge(model, adapters, tmp_path / "theirs", wide, cast=DTYPES[asked])
    assert_same_bits(saved_tensors(tmp_path / "ours"), theirs)
    assert facts.converted == 6  # the embedding and five norms
    config = json.loads((tmp_path / "ours" / "config.json").read_text(encoding="utf-8"))
    assert config["dtype"] == asked


def test_the_merged_folder_loads_in_transformers_and_gives_peft_s_logits(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = tiny_model(tmp_path / "base")
    adapter = tiny_adapter(tmp_path / "adapter", model)
    our_merge(model, [adapter], tmp_path / "ours")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "ours")
    ids = tokenizer("What is the weather in Paris?", return_tensors="pt").input_ids
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), adapter)
    with torch.no_grad():
        # float32 adds the delta before or after the product: rounding alone, a thousandth of these logits
        torch.testing.assert_close(merged(ids).logits, adapted(ids).logits, atol=1e-4, rtol=1e-4)
    assert tokenizer.chat_template
