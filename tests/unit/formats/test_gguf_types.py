from collections import Counter

import pytest

from lf_export.formats.gguf_types import SCHEMES, ModelShape, tensor_type, use_more_bits

SMOL = ModelShape("llama", layers=30, heads=9, kv_heads=3, tied=True)
LARGE = ModelShape("llama", layers=80, heads=64, kv_heads=8, tied=False)


def kind(name: str, shape: tuple[int, ...], scheme: str, model: ModelShape = SMOL, *, imatrix: bool = True) -> str:
    return tensor_type(name, shape, SCHEMES[scheme], model, imatrix=imatrix).name


@pytest.mark.parametrize("scheme", SCHEMES)
def test_norms_and_biases_are_always_float(scheme: str) -> None:
    assert kind("blk.0.attn_norm.weight", (576,), scheme) == "F32"
    assert kind("blk.0.attn_q.bias", (576,), scheme) == "F32"
    assert kind("rope_freqs.weight", (32,), scheme) == "F32"


@pytest.mark.parametrize(
    ("scheme", "narrow"),
    [
        ("Q4_K_M", "Q5_0"),
        ("Q4_K_S", "Q5_0"),
        ("Q5_K_M", "Q5_1"),
        ("Q6_K", "Q8_0"),
        ("Q3_K_S", "Q4_0"),
        ("Q2_K", "Q4_0"),
        ("IQ4_XS", "IQ4_NL"),
        ("IQ2_XXS", "IQ4_NL"),
    ],
)
def test_a_width_that_256_does_not_divide_falls_back_to_small_blocks(scheme: str, narrow: str) -> None:
    assert kind("blk.5.attn_q.weight", (576, 576), scheme) == narrow


@pytest.mark.parametrize("scheme", ["Q8_0", "Q6_K", "Q4_K_M"])
def test_a_width_that_no_block_divides_stays_half_precision(scheme: str) -> None:
    assert kind("blk.5.attn_q.weight", (40, 40), scheme) == "F16"


def test_tied_embeddings_are_quantized_as_the_output_that_they_are() -> None:
    assert kind("token_embd.weight", (1000, 1024), "Q4_K_M") == "Q6_K"
    assert kind("token_embd.weight", (1000, 576), "Q4_K_M") == "Q8_0"
    assert kind("token_embd.weight", (1000, 1024), "Q4_K_M", LARGE) == "Q4_K"
    assert kind("output.weight", (1000, 1024), "Q4_K_M", LARGE) == "Q6_K"


def test_medium_mixtures_spare_the_outer_layers_and_every_third_between() -> None:
    spared = [layer for layer in range(30) if use_more_bits(layer, 30)]
    assert spared == [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 26, 27, 28, 29]
    down = Counter(kind(f"blk.{layer}.ffn_down.weight", (576, 1536), "Q4_K_M") for layer in range(30))
    assert down == {"Q6_K": 14, "Q4_K": 16}
    value = [kind(f"blk.{layer}.attn_v.weight", (192, 1024), "Q5_K_M") for layer in (0, 3)]
    assert value == ["Q6_K", "Q5_K"]


def test_the_small_mixture_spares_the_first_layers() -> None:
    values = [kind(f"blk.{layer}.attn_v.weight", (256, 1024), "Q4_K_S") for layer in (3, 4)]
    downs = [kind(f"blk.{layer}.ffn_down.weight", (256, 1024), "Q4_K_S") for layer in (2, 3)]
    assert values == downs == ["Q5_K", "Q4_K"]


def test_a_70b_model_has_more_bits_where_few_heads_hold_the_values() -> None:
    assert kind("blk.11.attn_v.weight", (1024, 8192), "Q4_K_M", LARGE) == "Q5_K"
    assert kind("blk.11.attn_k.weight", (1024, 8192), "Q4_K_M", LARGE) == "Q4_K"
    every_head = ModelShape("llama", layers=80, heads=64, kv_heads=64, tied=False)
    assert kind("blk.11.attn_v.weight", (8192, 8192), "Q4_K_M", every_head) == "Q4_K"
    assert kind("blk.11.attn_v.weight", (1024, 8192), "Q3_K_S", LARGE) == "Q5_K"


def test_without_an_importance_matrix_the_first_layers_get_other_types() -> None:
    down = ("blk.1.ffn_down.weight", (576, 1536))
    assert [kind(*down, "IQ4_XS", imatrix=given) for given in (True, False)] == ["IQ4_XS", "Q5_K"]
    assert [kind(*down, "Q4_0", imatrix=given) for given in (True, False)] == ["Q4_1", "Q4_0"]
    assert kind("blk.9.ffn_down.weight", (576, 1536), "Q4_0") == "Q4_0"
