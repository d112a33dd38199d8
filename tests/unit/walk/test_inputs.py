import pytest

from lf_export.walk.families import FAMILIES
from lf_export.walk.inputs import INPUT_MAKERS, input_makers, made_by


@pytest.mark.parametrize("model_type", INPUT_MAKERS)
def test_every_group_of_every_family_has_a_maker(model_type: str) -> None:
    firsts = {group[0] for group in FAMILIES[model_type].groups}
    assert set(INPUT_MAKERS[model_type]) == firsts
    linears = set(FAMILIES[model_type].linears_at(0))
    assert all(maker.norm != (maker.module in linears) for maker in INPUT_MAKERS[model_type].values())


def test_a_family_that_is_not_in_the_table_has_no_makers() -> None:
    assert input_makers({"model_type": "mixtral"}) == {}


def test_query_heads_of_a_group_read_the_same_rows_of_v() -> None:
    config = {"num_attention_heads": 4, "num_key_value_heads": 2}
    maker = INPUT_MAKERS["llama"]["self_attn.o_proj"]
    assert made_by(maker, 8, 4, config).tolist() == [0, 1, 0, 1, 2, 3, 2, 3]
    assert made_by(maker, 8, 8, {"num_attention_heads": 4}).tolist() == list(range(8))


def test_the_last_rows_of_a_fused_linear_make_the_input() -> None:
    makers = INPUT_MAKERS["phi3"]
    assert made_by(makers["mlp.down_proj"], 3, 6, {}).tolist() == [3, 4, 5]
    config = {"num_attention_heads": 2, "num_key_value_heads": 1}
    assert made_by(makers["self_attn.o_proj"], 4, 8, config).tolist() == [6, 7, 6, 7]
