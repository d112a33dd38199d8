"""What a LoRA config says: what changes the mathematics is refused by name, and so is what nobody here knows."""

import math
from typing import Any

import pytest

from lf_export.checkpoint.lora_config import REFUSED, refusals, scaling_of, targets, token_indices, trained_whole

PLAIN: dict[str, Any] = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}


@pytest.mark.parametrize("field", REFUSED)
def test_a_field_that_changes_the_mathematics_is_refused_by_name(field: str) -> None:
    for value in (True, {"x": 1}, ["x"], "all"):
        (problem,) = refusals(PLAIN | {field: value})
        assert problem.startswith(f"{field} is set")
        assert REFUSED[field] in problem
    for value in (None, False, [], {}):
        assert refusals(PLAIN | {field: value}) == []


def test_no_other_bias_than_peft_s_is_known() -> None:
    for value in ("none", "all", "lora_only", None):
        assert refusals(PLAIN | {"bias": value}) == []
    assert refusals(PLAIN | {"bias": "every"}) != []


def test_dora_with_a_bias_of_its_own_is_refused() -> None:
    assert refusals(PLAIN | {"use_dora": True}) == refusals(PLAIN | {"lora_bias": True}) == []
    assert refusals(PLAIN | {"use_dora": True, "lora_bias": True}) != []


def test_modules_trained_whole_are_named_by_the_end_letter_by_letter() -> None:
    config = PLAIN | {"modules_to_save": ["norm", "mlp"]}
    assert trained_whole(config, "model.norm.weight")
    assert trained_whole(config, "model.layers.0.input_layernorm.weight")
    assert trained_whole(config, "model.layers.0.mlp.up_proj.weight")
    assert not trained_whole(config, "model.layers.0.self_attn.q_proj.weight")
    assert not trained_whole(PLAIN, "model.norm.weight")
    assert trained_whole(PLAIN | {"bias": "all"}, "model.layers.0.self_attn.q_proj.bias")


def test_trained_rows_are_the_same_for_all_layers_or_by_layer() -> None:
    assert token_indices(PLAIN, "model.embed_tokens") is None
    assert token_indices(PLAIN | {"trainable_token_indices": [2, 1]}, "model.embed_tokens") == [2, 1]
    by_layer = PLAIN | {"trainable_token_indices": {"embed_tokens": [2], "lm_head": [3]}}
    assert token_indices(by_layer, "model.embed_tokens") == [2]
    assert token_indices(by_layer, "lm_head") == [3]
    assert token_indices(by_layer, "model.norm") is None


@pytest.mark.parametrize("kind", ["IA3", "ADALORA", "PREFIX_TUNING", "lora", 1, None])
def test_another_peft_type_is_refused_by_name(kind: Any) -> None:
    assert refusals(PLAIN | {"peft_type": kind}) == [f"peft_type {kind!r} is not handled, LORA is"]


@pytest.mark.parametrize(
    "start", ["pissa", "pissa_niter_16", "olora", "corda", "loftq", "lora_ga", "unheard_of", None, 3, ["eva"]]
)
def test_a_start_that_changes_the_base_is_refused(start: Any) -> None:
    (problem,) = refusals(PLAIN | {"init_lora_weights": start})
    assert repr(start) in problem


@pytest.mark.parametrize("start", [True, False, "gaussian", "eva", "orthogonal", "mica"])
def test_a_start_that_leaves_the_base_alone_is_accepted(start: Any) -> None:
    assert refusals(PLAIN | {"init_lora_weights": start}) == []


def test_a_field_of_a_newer_peft_is_refused_once_it_is_set() -> None:
    assert refusals(PLAIN | {"use_hyper": None, "other": False}) == []
    assert refusals(PLAIN | {"use_hyper": 2}) == ["use_hyper is set, a field that this version does not know"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("r", 0),
        ("r", True),
        ("r", "4"),
        ("lora_alpha", None),
        ("lora_alpha", math.nan),
        ("rank_pattern", ["q_proj"]),
        ("rank_pattern", {"q_proj": 1.5}),
        ("rank_pattern", {"(": 2}),
        ("alpha_pattern", {"q_proj": "8"}),
        ("target_modules", 3),
        ("target_modules", ["q_proj", 3]),
        ("target_modules", "("),
        ("exclude_modules", "["),
        ("layers_pattern", {}),
        ("layers_pattern", ["("]),
        ("layers_to_transform", "1"),
        ("layers_to_transform", [1.0]),
        ("modules_to_save", "lm_head"),
        ("trainable_token_indices", [1, 1]),
        ("trainable_token_indices", [-1]),
        ("trainable_token_indices", {"embed_tokens": [1.5]}),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(field: str, value: Any) -> None:
    problems = refusals(PLAIN | {field: value})
    assert problems
    assert all(field in problem for problem in problems)


@pytest.mark.parametrize("wanted", [None, "all-linear"])
def test_targets_that_are_not_named_leave_it_to_the_tensors(wanted: str | None) -> None:
    assert targets({"target_modules": wanted}, "model.layers.0.self_attn.q_proj") is None


def test_rslora_divides_by_the_root_of_the_rank() -> None:
    assert scaling_of({"r": 5, "lora_alpha": 3}, "m") == 3 / 5
    assert scaling_of({"r": 5, "lora_alpha": 3, "use_rslora": True}, "m") == 3 / math.sqrt(5)
