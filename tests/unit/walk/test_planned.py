"""What a plan takes from config.json alone is what the weights' own headers say."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from models import tiny_model

from lf_export.checkpoint.index import open_checkpoint
from lf_export.errors import InputError
from lf_export.walk.families import FAMILIES
from lf_export.walk.planned import is_config_alone, planned_checkpoint


def config_alone(folder: Path, value: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(value), encoding="utf-8")
    return folder


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_names_shapes_and_dtypes_are_those_of_the_checkpoint(tmp_path: Path, family: str, tied: bool) -> None:
    model = tiny_model(tmp_path / "model", family, tie_word_embeddings=tied, tokenizer=False)
    real = open_checkpoint(model)
    (tmp_path / "config").mkdir()
    shutil.copy(model / "config.json", tmp_path / "config")
    assert is_config_alone(tmp_path / "config")
    assert not is_config_alone(model)
    planned = planned_checkpoint(tmp_path / "config")
    assert planned.planned
    assert {name: (info.shape, info.dtype, info.nbytes) for name, info in planned.tensors.items()} == {
        name: (info.shape, info.dtype, info.nbytes) for name, info in real.tensors.items()
    }
    assert (planned.tied, planned.nbytes) == (real.tied, real.nbytes)


LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 320,
}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"model_type": "lama"}, "model_type is 'lama'"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, expected a number from 1 to 1,000"),
        ({"hidden_size": -1}, "hidden_size is -1"),
        ({"vocab_size": "many"}, "vocab_size is 'many'"),
        ({"num_attention_heads": 0}, "Transformers makes no model of it"),
        ({"dtype": "int3"}, "dtype"),
        ({"quantization_config": {"quant_method": "gptq"}}, "whose tensors only its weights tell"),
    ],
)
def test_a_config_that_cannot_be_planned_is_refused(tmp_path: Path, change: dict[str, Any], what: str) -> None:
    with pytest.raises(InputError) as caught:
        planned_checkpoint(config_alone(tmp_path / "config", LLAMA | change))
    assert what in caught.value.message


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.safetensors.index.json"])
def test_a_folder_with_weights_of_any_kind_is_not_planned_from_its_config(tmp_path: Path, name: str) -> None:
    folder = config_alone(tmp_path / "config", LLAMA)
    assert is_config_alone(folder)
    (folder / name).write_bytes(b"")
    assert not is_config_alone(folder)
