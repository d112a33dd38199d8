import pytest

from lf_export.errors import InputError
from lf_export.walk.families import FAMILIES, family_of, num_layers


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen3", "phi3", "gemma3_text"])
def test_a_known_architecture_says_which_linears_share_an_input(model_type: str) -> None:
    family = family_of({"model_type": model_type})
    assert len(family.groups) == 4
    assert len(set(family.linears_at(0))) == len(family.linears_at(0))
    assert family.prefix(3) == "model.layers.3"


@pytest.mark.parametrize("model_type", ["gpt2", None, 7])
def test_an_unknown_architecture_is_refused_with_the_list_of_known_ones(model_type: object) -> None:
    with pytest.raises(InputError) as caught:
        family_of({"model_type": model_type})
    assert (
        f"model_type is {model_type!r}, expected one of llama, mistral, qwen2, qwen3, phi3, gemma3_text"
        in caught.value.message
    )


def test_a_near_miss_is_named() -> None:
    with pytest.raises(InputError) as caught:
        family_of({"model_type": "qwen_3"})
    assert caught.value.hint == "did you mean qwen3"


@pytest.mark.parametrize("count", [None, 0, "30", 2.5])
def test_a_config_without_a_number_of_layers_is_refused(count: object) -> None:
    with pytest.raises(InputError, match="num_hidden_layers"):
        num_layers({"num_hidden_layers": count})


def test_the_table_is_keyed_by_the_families_own_names() -> None:
    assert all(name == family.model_type for name, family in FAMILIES.items())


def experts(**fields: object) -> dict[str, object]:
    return {"model_type": "qwen3_moe", "num_hidden_layers": 4, "num_experts": 3, "num_experts_per_tok": 2} | fields


def test_each_expert_has_two_groups_after_those_of_attention() -> None:
    family = family_of(experts())
    assert family.groups_at(0)[:2] == FAMILIES["qwen3"].groups[:2]
    assert family.groups_at(0)[2:4] == (
        ("mlp.experts.0.gate_proj", "mlp.experts.0.up_proj"),
        ("mlp.experts.0.down_proj",),
    )
    assert len(family.groups_at(0)) == 2 + 2 * 3
    mixtral = family_of(
        {"model_type": "mixtral", "num_hidden_layers": 1, "num_local_experts": 2, "num_experts_per_tok": 1}
    )
    assert mixtral.linears_at(0)[-3:] == tuple(f"block_sparse_moe.experts.1.{name}" for name in ("w1", "w3", "w2"))


def test_layers_without_experts_have_an_ordinary_feed_forward() -> None:
    family = family_of(experts(mlp_only_layers=[0]))
    assert [family.experts_at(index) is None for index in range(4)] == [True, False, False, False]
    assert family.groups_at(0) == FAMILIES["qwen3"].groups
    family = family_of(experts(decoder_sparse_step=2))
    assert [family.experts_at(index) is None for index in range(4)] == [True, False, True, False]


def test_the_key_that_transformers_5_writes_counts_experts_too() -> None:
    config = experts(num_local_experts=3)
    del config["num_experts"]
    assert family_of(config).groups_at(0) == family_of(experts()).groups_at(0)


@pytest.mark.parametrize(
    "fields", [{"num_experts": None}, {"num_experts_per_tok": 4}, {"num_experts_per_tok": "2"}], ids=str
)
def test_a_config_that_does_not_say_how_many_experts_there_are_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"num_experts is .*, expected a number of experts"):
        family_of(experts(**fields))
