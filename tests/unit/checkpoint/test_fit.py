"""Whether an adapter belongs to a base: all mistakes in one error, before anything is written."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lf_export.checkpoint.adapter import open_adapter
from lf_export.checkpoint.fit import check_combines, check_fits
from lf_export.checkpoint.index import open_checkpoint
from lf_export.errors import InputError

Make = Callable[..., Path]
Tensors = Callable[..., dict[str, torch.Tensor]]
HEAD = "base_model.model.lm_head"


def problems(adapter: Path, base: Path) -> list[str]:
    """What `check_fits` says, line by line, without its heading."""
    with pytest.raises(InputError) as caught:
        check_fits(open_adapter(adapter), open_checkpoint(base))
    heading, *lines = caught.value.message.splitlines()
    assert heading == f"the adapter does not fit the base {base}:"
    return lines


def test_an_adapter_for_the_base_fits(make_base: Make, make_adapter: Make) -> None:
    check_fits(open_adapter(make_adapter()), open_checkpoint(make_base()))


def test_shapes_missing_layers_and_leftovers_are_listed_together(
    make_base: Make, make_adapter: Make, base_tensors: Tensors, lora_tensors: Tensors
) -> None:
    tensors = base_tensors(layers=3)
    tensors["model.layers.0.self_attn.q_proj.weight"] = torch.zeros(6, 5)
    del tensors["model.layers.1.self_attn.q_proj.weight"]
    lines = problems(
        make_adapter(lora_tensors(targets=("q_proj", "k_proj")), target_modules=["q_proj"]), make_base(tensors)
    )
    assert [line.partition(": ")[2] for line in lines] == [
        "has tensors for model.layers.0.self_attn.k_proj, which its target_modules do not name",
        "model.layers.0.self_attn.q_proj.weight is [6, 5], the adapter is for [6, 4]",
        "has tensors for model.layers.1.self_attn.k_proj, which its target_modules do not name",
        "no model.layers.1.self_attn.q_proj.weight, which the adapter changes",
        "has nothing for model.layers.2.self_attn.q_proj, which its target_modules name",
    ]


def test_a_long_list_is_cut_and_counted(make_base: Make, make_adapter: Make, base_tensors: Tensors) -> None:
    lines = problems(make_adapter(), make_base(base_tensors(layers=22)))
    assert len(lines) == 13
    assert lines[-1] == "… and 8 more"


def test_the_adapter_s_own_base_is_the_hint(make_base: Make, make_adapter: Make, base_tensors: Tensors) -> None:
    adapter = open_adapter(make_adapter(base_model_name_or_path="org/other"))
    with pytest.raises(InputError) as caught:
        check_fits(adapter, open_checkpoint(make_base(base_tensors(layers=3))))
    assert caught.value.hint == "the adapter says that its base is 'org/other'"


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"quantization_config": {"bits": 4}}, "the base is quantized"),
    ],
)
def test_a_base_that_cannot_be_added_to_is_refused(
    make_base: Make, make_adapter: Make, config: dict[str, object], says: str
) -> None:
    (line,) = problems(make_adapter(), make_base(**config))
    assert says in line


def test_a_target_that_is_no_float_is_refused(make_base: Make, make_adapter: Make, base_tensors: Tensors) -> None:
    quantized = {"model.layers.0.self_attn.q_proj.weight": torch.zeros(6, 4, dtype=torch.int8)}
    (line,) = problems(make_adapter(), make_base(base_tensors() | quantized))
    assert "is I8, a float weight was expected" in line


def head_adapter(make_adapter: Make, lora_tensors: Tensors, copy: dict[str, torch.Tensor]) -> Path:
    factors = {f"{HEAD}.lora_A.weight": torch.ones(2, 4), f"{HEAD}.lora_B.weight": torch.ones(10, 2)}
    return make_adapter(lora_tensors() | factors | copy, target_modules=["q_proj", "lm_head"])


def test_a_transposed_base_wants_the_turned_shape(make_base: Make, make_adapter: Make, base_tensors: Tensors) -> None:
    turned = {name: tensor.t().contiguous() if "q_proj" in name else tensor for name, tensor in base_tensors().items()}
    check_fits(open_adapter(make_adapter()), open_checkpoint(make_base(turned, model_type="gpt2")))
    lines = problems(make_adapter(name="other"), make_base(name="straight", model_type="gpt2"))
    assert "q_proj.weight is [6, 4], the adapter is for [4, 6]" in lines[0]


def test_an_adapter_on_a_tied_output_layer_fits(make_base: Make, make_adapter: Make, lora_tensors: Tensors) -> None:
    check_fits(open_adapter(head_adapter(make_adapter, lora_tensors, {})), open_checkpoint(make_base()))


def test_a_whole_module_that_is_missing_or_of_another_shape_is_named(
    make_base: Make, make_adapter: Make, lora_tensors: Tensors
) -> None:
    norm = {"base_model.model.model.layers.0.input_layernorm.weight": torch.ones(5)}
    lines = problems(make_adapter(lora_tensors() | norm, modules_to_save=["norm"]), make_base())
    assert "model.layers.0.input_layernorm.weight is [4], in" in lines[0]
    assert "has no model.layers.1.input_layernorm.weight, which its modules_to_save name" in lines[1]


def test_a_bias_needs_one_in_the_base(make_base: Make, make_adapter: Make, lora_tensors: Tensors) -> None:
    biases = {
        name.replace("lora_B.weight", "lora_B.bias"): torch.ones(6) for name in lora_tensors() if "lora_B" in name
    }
    lines = problems(make_adapter(lora_tensors() | biases, lora_bias=True), make_base())
    assert "no model.layers.0.self_attn.q_proj.bias, to which the adapter adds (lora_bias)" in lines[0]


def test_trained_rows_need_a_matrix_of_their_width(make_base: Make, make_adapter: Make, lora_tensors: Tensors) -> None:
    rows = {
        "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": torch.ones(1, 5),
        "base_model.model.other.token_adapter.trainable_tokens_delta": torch.ones(1, 4),
    }
    lines = problems(make_adapter(lora_tensors() | rows, trainable_token_indices=[0]), make_base())
    assert "model.embed_tokens.weight has 4 columns, the trained rows have 5" in lines[0]
    assert "no matrix other.weight, rows of which were trained" in lines[1]


def test_only_plain_adapters_of_one_rank_are_combined(make_adapter: Make, lora_tensors: Tensors) -> None:
    adapters = [open_adapter(make_adapter(lora_tensors(rank), f"rank{rank}", r=rank)) for rank in (2, 3)]
    check_combines(adapters, "cat")
    with pytest.raises(InputError, match=r"q_proj: ranks \[2, 3\], one was expected"):
        check_combines(adapters, "linear")
    norm = {f"base_model.model.model.layers.{layer}.input_layernorm.weight": torch.ones(4) for layer in (0, 1)}
    whole = open_adapter(make_adapter(lora_tensors() | norm, "whole", modules_to_save=["norm"]))
    with pytest.raises(InputError, match="has modules trained whole, which cannot be combined"):
        check_combines([adapters[0], whole], "cat")


def test_a_copy_of_the_base_s_weight_is_accepted_when_it_is_one(
    make_base: Make, make_adapter: Make, base_tensors: Tensors, lora_tensors: Tensors
) -> None:
    head = torch.randn(10, 4).bfloat16()
    copy = {
        f"{HEAD}.base_layer.weight": head.float(),
        "base_model.model.model.embed_tokens.weight": (base_tensors()["model.embed_tokens.weight"]),
    }
    base = make_base(base_tensors() | {"lm_head.weight": head}, tie_word_embeddings=False)
    check_fits(open_adapter(head_adapter(make_adapter, lora_tensors, copy)), open_checkpoint(base))


def test_a_copy_of_the_tied_output_layer_is_compared_with_the_embedding(
    make_base: Make, make_adapter: Make, base_tensors: Tensors, lora_tensors: Tensors
) -> None:
    copy = {f"{HEAD}.weight": base_tensors()["model.embed_tokens.weight"]}
    check_fits(open_adapter(make_adapter(lora_tensors() | copy)), open_checkpoint(make_base()))
