import pytest

from lf_export.errors import InputError
from lf_export.walk.families import FAMILIES, family_of, num_layers


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen3", "phi3", "gemma3_text"])
def test_a_known_architecture_says_which_linears_share_an_input(model_type: str) -> None:
    family = family_of({"model_type": model_type})
    assert len(family.groups) == 4
    assert len(set(family.linears)) == len(family.linears)
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
