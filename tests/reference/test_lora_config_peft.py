"""Our reading of a LoRA config against PEFT's: every field has a place, and the rules for names are the same."""

import dataclasses
from typing import Any

import pytest

from lf_export.checkpoint.lora_config import HANDLED, INERT, REFUSED, rank_of, refusals, scaling_of, targets

MODULES = [
    "model.layers.0.self_attn.q_proj",
    "model.layers.1.self_attn.q_proj",
    "model.layers.11.self_attn.q_proj",
    "model.layers.1.mlp.q_proj_extra",
    "model.layers.1.mlp.down_proj",
    "model.layers.1.mlp.experts.0.down_proj",
    "vision.blocks.1.attn.q_proj",
    "lm_head",
    "q_proj",
]


def test_every_field_of_peft_s_config_has_exactly_one_place() -> None:
    from peft import LoraConfig

    fields = {field.name for field in dataclasses.fields(LoraConfig)}
    unplaced = fields - HANDLED - INERT - REFUSED.keys()
    assert not unplaced, f"say in lora_config.py what these mean to a merge: {sorted(unplaced)}"
    assert fields >= HANDLED | INERT | REFUSED.keys()
    assert not HANDLED & INERT
    assert not (HANDLED | INERT) & REFUSED.keys()


def test_a_config_with_peft_s_defaults_is_accepted() -> None:
    from peft import LoraConfig

    saved = LoraConfig(r=4, target_modules=["q_proj"]).to_dict()
    saved = {key: sorted(value) if isinstance(value, set) else value for key, value in saved.items()}
    assert refusals(saved | {"peft_type": "LORA"}) == []


def test_every_other_peft_type_is_refused_by_name() -> None:
    from peft import PeftType

    kinds = {kind.value for kind in PeftType} - {"LORA"}
    assert len(kinds) > 20
    for kind in kinds:
        assert refusals({"peft_type": kind, "r": 4}) == [f"peft_type {kind!r} is not handled, LORA is"]


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ["q_proj"]},
        {"target_modules": ["layers.1.self_attn.q_proj", "lm_head"]},
        {"target_modules": r".*\.1\..*proj"},
        {"target_modules": ["q_proj", "down_proj"], "exclude_modules": ["mlp.down_proj"]},
        {"target_modules": ["q_proj", "down_proj"], "exclude_modules": r".*experts.*"},
        {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": [1]},
        {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": 1, "layers_pattern": "layers"},
        {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": [0, 1], "layers_pattern": ["blocks"]},
        {"target_modules": ["q_proj"], "layers_to_transform": []},
    ],
)
def test_targets_are_peft_s(config: dict[str, Any]) -> None:
    from peft import LoraConfig
    from peft.tuners.tuners_utils import check_target_module_exists

    theirs = LoraConfig(**config)
    ours = [bool(targets(config, module)) for module in MODULES]
    assert ours == [bool(check_target_module_exists(theirs, module)) for module in MODULES]
    assert any(ours)


@pytest.mark.parametrize(
    "patterns",
    [
        {"q_proj": 2},
        {"self_attn.q_proj": 3, "q_proj": 2},
        {"q_proj": 2, "self_attn.q_proj": 3},
        {r"^model\.layers\.1\..*": 7},
        {"layers.1.mlp.down_proj": 5, "lm_head": 9},
        {"proj": 6},
    ],
)
def test_ranks_and_alphas_follow_peft_s_patterns(patterns: dict[str, int]) -> None:
    from peft.utils.other import get_pattern_key

    for module in MODULES:
        expected = patterns.get(get_pattern_key(list(patterns), module), 4)
        assert rank_of({"r": 4, "rank_pattern": patterns}, module) == expected
        assert scaling_of({"r": 4, "lora_alpha": 4, "alpha_pattern": patterns}, module) == expected / 4
