"""Every kind of change that a LoRA adapter can hold, against PEFT: the same bits, or the same function where PEFT errs.

PEFT merges what was meant for one of two tied weights into both. There the reference is PEFT on the untied base, as
PEFT itself advises, and the logits of PEFT before the merge.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from models import tiny_adapter, tiny_model
from peft_merge import (
    DTYPES,
    assert_same_bits,
    logits,
    our_merge,
    peft_merge,
    peft_model,
    saved_tensors,
    unmerged_logits,
    untied,
)

TIED: dict[str, Any] = {}
UNTIED = {"tie_word_embeddings": False}
GPT2 = {"family": "gpt2", "n_inner": 128}
BOTH = {"model.embed_tokens.weight", "lm_head.weight"}
ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 0.06, torch.float16: 0.01}
"""What merging may move logits of about 3: the delta is added to the weight and rounded there, or to the result."""


def config_of(folder: Path) -> Any:
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


def compared(
    tmp_path: Path,
    dtype: torch.dtype,
    base: dict[str, Any],
    *adapters: dict[str, Any],
    vocab_size: int | None = None,
    untie: bool = False,
    same_tensors: bool = True,
) -> Any:
    """Merge both ways; with `untie` PEFT merges into the untied base. Gives our facts."""
    model = tiny_model(tmp_path / "base", dtype=dtype, tokenizer=False, **base)
    folders = [
        tiny_adapter(tmp_path / f"adapter{seed}", model, seed=seed, vocab_size=vocab_size, **config)
        for seed, config in enumerate(adapters, 1)
    ]
    facts = our_merge(model, folders, tmp_path / "ours")
    start = untied(model, tmp_path / "untied", dtype) if untie else model
    theirs = peft_merge(start, folders, tmp_path / "theirs", dtype, vocab_size=vocab_size)
    ours = saved_tensors(tmp_path / "ours")
    if same_tensors:
        assert_same_bits(ours, theirs)
        said, expected = config_of(tmp_path / "ours"), config_of(tmp_path / "theirs")
        assert said.get("tie_word_embeddings") == expected.get("tie_word_embeddings")
        assert said["vocab_size"] == expected["vocab_size"]
    if len(folders) == 1:
        found = logits(peft_model(tmp_path / "ours", dtype))
        wanted = unmerged_logits(model, folders[0], dtype, vocab_size)
        torch.testing.assert_close(found, wanted, atol=ROUNDING[dtype], rtol=0.03)
    before = saved_tensors(model)
    for name in facts.changed:
        if name in before:
            assert ours[name].shape != before[name].shape or not torch.equal(ours[name], before[name]), name
    assert facts.max_deviation <= facts.max_deviation_bound
    return facts


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize(
    ("base", "saved"),
    [
        (UNTIED, ["lm_head", "embed_tokens"]),
        (UNTIED, ["norm"]),
        (UNTIED, ["mlp"]),
        (TIED, ["embed_tokens"]),
        (TIED, ["lm_head"]),
        (TIED, ["embed_tokens", "lm_head"]),
    ],
    ids=["both", "norms", "mlp", "tied-embedding", "tied-output", "tied-both"],
)
def test_modules_trained_whole_are_peft_bit_for_bit(
    tmp_path: Path, dtype: torch.dtype, base: dict[str, Any], saved: list[str]
) -> None:
    facts = compared(tmp_path, dtype, base, {"target_modules": ["q_proj"], "modules_to_save": saved})
    assert (facts.config == {"tie_word_embeddings": False}) == (base is TIED)
    assert facts.added == (("lm_head.weight",) if base is TIED else ())
    if saved == ["norm"]:
        assert len(facts.changed) == 2 + 5


def test_whole_modules_that_are_to_stay_tied_stay_tied(tmp_path: Path) -> None:
    config = {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}
    facts = compared(tmp_path, torch.bfloat16, TIED, config)
    assert "model.embed_tokens.weight" in facts.changed
    assert (facts.config, facts.added) == ({}, ())


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("base", [TIED, UNTIED], ids=["tied", "untied"])
def test_trained_rows_of_the_embedding_are_peft_bit_for_bit(
    tmp_path: Path, dtype: torch.dtype, base: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lf_export.checkpoint.rows._BLOCK_ELEMENTS", 1 << 12)
    config = {"target_modules": ["q_proj"], "trainable_token_indices": [319, 3, 64, 70]}
    facts = compared(tmp_path, dtype, base, config)
    assert facts.changed[0] == "model.embed_tokens.weight"
    assert facts.config == {}


@pytest.mark.parametrize("indices", [{"embed_tokens": [3, 7], "lm_head": [3, 9]}, {"lm_head": [3, 9]}])
def test_rows_trained_for_one_of_two_tied_weights_untie_them(tmp_path: Path, indices: dict[str, list[int]]) -> None:
    config = {"target_modules": ["q_proj"], "trainable_token_indices": indices}
    facts = compared(tmp_path, torch.bfloat16, TIED, config, untie=True)
    assert facts.config == {"tie_word_embeddings": False}


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_lora_on_an_embedding_is_peft_bit_for_bit(
    tmp_path: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lf_export.checkpoint.rows._BLOCK_ELEMENTS", 1 << 12)
    config = {"target_modules": ["q_proj", "embed_tokens"], "r": 6, "use_rslora": True}
    facts = compared(tmp_path, dtype, UNTIED | {"vocab_size": 345}, config)
    assert "model.embed_tokens.weight" in facts.changed


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("targets", [["embed_tokens"], ["lm_head"], ["embed_tokens", "lm_head"]], ids="+".join)
def test_lora_on_one_of_two_tied_weights_is_peft_on_the_untied_base(
    tmp_path: Path, dtype: torch.dtype, targets: list[str]
) -> None:
    facts = compared(tmp_path, dtype, TIED, {"target_modules": ["q_proj", *targets]}, untie=True)
    assert facts.config == {"tie_word_embeddings": False}
    assert facts.added == ("lm_head.weight",)
    assert (set(facts.changed) & BOTH == BOTH) == (len(targets) == 2)


def test_lora_on_weights_that_are_to_stay_tied_is_added_once(tmp_path: Path) -> None:
    targets = ["q_proj", "embed_tokens", "lm_head"]
    config = {"target_modules": targets, "ensure_weight_tying": True}
    # PEFT adds the product to the shared tensor twice: the logits before its merge are the reference
    facts = compared(tmp_path, torch.float32, TIED, config, same_tensors=False)
    assert (facts.config, facts.added) == ({}, ())
    assert "model.embed_tokens.weight" in facts.changed


def test_tied_weights_stay_apart_for_the_next_adapter(tmp_path: Path) -> None:
    saved = {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}
    rows = {"target_modules": ["v_proj"], "trainable_token_indices": [5]}
    facts = compared(tmp_path, torch.bfloat16, TIED, saved, rows)
    assert facts.config == {"tie_word_embeddings": False}


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_dora_is_peft_bit_for_bit_in_several_row_blocks(
    tmp_path: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lf_export.checkpoint.rows._BLOCK_ELEMENTS", 1 << 12)
    base = {"hidden_size": 192, "intermediate_size": 500, "num_hidden_layers": 1, "head_dim": 48}
    facts = compared(tmp_path, dtype, base, {"use_dora": True, "r": 8, "lora_alpha": 12})
    assert len(facts.changed) == 7


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_dora_after_lora_after_dora_is_peft_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    compared(tmp_path, dtype, {}, {"use_dora": True}, {"r": 3}, {"use_dora": True, "use_rslora": True})


def test_dora_on_an_embedding_is_peft_but_for_the_order_of_a_norm_s_sum(tmp_path: Path) -> None:
    config = {"use_dora": True, "target_modules": ["q_proj", "embed_tokens"]}
    compared(tmp_path, torch.float32, UNTIED, config, same_tensors=False)
    ours, theirs = saved_tensors(tmp_path / "ours"), saved_tensors(tmp_path / "theirs")
    name = "model.embed_tokens.weight"
    # 320 squares added up in float32 or in float64: a few units in the last place
    torch.testing.assert_close(ours.pop(name), theirs.pop(name), rtol=1e-6, atol=1e-8)
    assert_same_bits(ours, theirs)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("targets", [["c_attn", "c_proj", "c_fc"], ["c_attn", "wte"]], ids=["layers", "embedding"])
def test_weights_that_are_stored_transposed_are_peft_bit_for_bit(
    tmp_path: Path, dtype: torch.dtype, targets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lf_export.checkpoint.rows._BLOCK_ELEMENTS", 1 << 12)
    facts = compared(tmp_path, dtype, GPT2, {"target_modules": targets, "r": 5}, untie="wte" in targets)
    assert any("c_attn" in name for name in facts.changed)


def test_dora_on_transposed_weights_is_peft_but_for_the_order_of_a_norm_s_sum(tmp_path: Path) -> None:
    config = {"use_dora": True, "target_modules": ["c_attn", "c_proj"]}
    facts = compared(tmp_path, torch.float32, GPT2, config, same_tensors=False)
    ours, theirs = saved_tensors(tmp_path / "ours"), saved_tensors(tmp_path / "theirs")
    for name in facts.changed:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize(
    "config",
    [{"lora_bias": True}, {"bias": "all"}, {"bias": "lora_only"}],
    ids=["lora_bias", "all", "lora_only"],
)
def test_biases_are_peft_bit_for_bit(tmp_path: Path, dtype: torch.dtype, config: dict[str, Any]) -> None:
    facts = compared(tmp_path, dtype, {"family": "qwen2"}, {"target_modules": ["q_proj"], **config})
    changed = [name for name in facts.changed if name.endswith(".bias")]
    assert len(changed) == (6 if config.get("bias") == "all" else 2)


@pytest.mark.parametrize(
    ("base", "config"),
    [
        (TIED, {}),
        (UNTIED, {}),
        (UNTIED, {"modules_to_save": ["embed_tokens", "lm_head"]}),
        (UNTIED, {"trainable_token_indices": [2, 320]}),
        (TIED, {"trainable_token_indices": [2, 320]}),
        (UNTIED, {"target_modules": ["embed_tokens", "lm_head"]}),
    ],
    ids=["tied", "untied", "whole", "rows", "tied-rows", "lora"],
)
def test_a_resized_vocabulary_is_peft_bit_for_bit(tmp_path: Path, base: dict[str, Any], config: dict[str, Any]) -> None:
    facts = compared(tmp_path, torch.bfloat16, base, {"target_modules": ["q_proj"]} | config, vocab_size=321)
    assert facts.config == {"vocab_size": 321}
    assert saved_tensors(tmp_path / "ours")["model.embed_tokens.weight"].shape[0] == 321


def test_lora_on_a_resized_tied_embedding_unties_it(tmp_path: Path) -> None:
    config = {"target_modules": ["q_proj", "embed_tokens"]}
    facts = compared(tmp_path, torch.float32, TIED, config, vocab_size=330, same_tensors=False)
    assert facts.config == {"tie_word_embeddings": False, "vocab_size": 330}
    ours = saved_tensors(tmp_path / "ours")
    assert ours["lm_head.weight"].shape == ours["model.embed_tokens.weight"].shape == (330, 64)


def test_an_adapter_in_several_shards_is_the_adapter_in_one(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    compared(tmp_path, torch.bfloat16, {}, {"use_dora": True})
    adapter = tmp_path / "adapter1"
    tensors = load_file(adapter / "adapter_model.safetensors")
    (adapter / "adapter_model.safetensors").unlink()
    weight_map = {}
    for number in range(3):
        file = f"adapter_model-{number + 1:05}-of-00003.safetensors"
        part = dict(list(tensors.items())[number::3])
        save_file(part, adapter / file, {"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    index = json.dumps({"metadata": {}, "weight_map": weight_map})
    (adapter / "adapter_model.safetensors.index.json").write_text(index, encoding="utf-8")
    our_merge(tmp_path / "base", [adapter], tmp_path / "sharded")
    assert_same_bits(saved_tensors(tmp_path / "sharded"), saved_tensors(tmp_path / "theirs"))


@pytest.mark.parametrize(
    ("combine", "dtype", "wide", "also"),
    [
        ("linear", "float32", "float32", "embed_tokens"),
        ("linear", "bfloat16", "bfloat16", "embed_tokens"),
        ("linear", "float16", "float16", "embed_tokens"),
        ("cat", "float32", "float32", "embed_tokens"),
        # PEFT rounds the factors that it puts together to the base's dtype: ours is PEFT in float32, rounded once
        ("cat", "bfloat16", "float32", "o_proj"),
        ("cat", "float16", "float32", "o_proj"),
    ],
)
def test_weighted_combinations_are_peft_bit_for_bit(
    tmp_path: Path, combine: str, dtype: str, wide: str, also: str
) -> None:
    from peft import PeftModel

    model = tiny_model(tmp_path / "base", dtype=DTYPES[dtype], tokenizer=False, **UNTIED)
    configs = [
        {"target_modules": ["q_proj", "down_proj", also], "lora_alpha": 3},
        {"target_modules": ["q_proj", "v_proj", also], "lora_alpha": 9},
        {"target_modules": ["q_proj", "v_proj", "lm_head"], "lora_alpha": 5},
    ]
    folders = [
        tiny_adapter(tmp_path / f"adapter{seed}", model, seed=seed, **config) for seed, config in enumerate(configs, 1)
    ]
    weights = [0.7, -0.4, 1.3]
    wrapped = PeftModel.from_pretrained(peft_model(model, DTYPES[wide]), folders[0], adapter_name="a")
    wrapped.load_adapter(folders[1], "b")
    wrapped.load_adapter(folders[2], "c")
    wrapped.add_weighted_adapter(["a", "b", "c"], weights, "mixed", combination_type=combine)
    wrapped.set_adapter("mixed")
    wrapped.merge_and_unload().to(DTYPES[dtype]).save_pretrained(tmp_path / "theirs")
    facts = our_merge(model, folders, tmp_path / "ours", weights=weights, combine=combine)
    assert_same_bits(saved_tensors(tmp_path / "ours"), saved_tensors(tmp_path / "theirs"))
    assert [adapter["weight"] for adapter in facts.adapters] == weights
    assert len(facts.changed) == 2 * 3 + (2 if also == "embed_tokens" else 3)


def test_weights_of_adapters_in_order_are_peft_s_scales(tmp_path: Path) -> None:
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer

    model = tiny_model(tmp_path / "base", dtype=torch.bfloat16, tokenizer=False)
    configs: list[dict[str, Any]] = [{"lora_alpha": 3}, {"use_dora": True}]
    folders = [
        tiny_adapter(tmp_path / f"adapter{seed}", model, seed=seed, **config) for seed, config in enumerate(configs, 1)
    ]
    weights = [0.7, 0.25]
    merged = peft_model(model, torch.bfloat16)
    for folder, weight in zip(folders, weights, strict=True):
        wrapped = PeftModel.from_pretrained(merged, folder)
        for module in wrapped.modules():
            if isinstance(module, LoraLayer):
                module.scale_layer(weight)
        merged = wrapped.merge_and_unload()
    merged.save_pretrained(tmp_path / "theirs")
    our_merge(model, folders, tmp_path / "ours", weights=weights)
    assert_same_bits(saved_tensors(tmp_path / "ours"), saved_tensors(tmp_path / "theirs"))
