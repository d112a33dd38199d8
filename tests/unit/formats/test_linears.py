"""What formats that quantize linears share: the group size that fits, what is refused before anything is written."""

from pathlib import Path
from typing import Any

import pytest
from models import tiny_model

from lf_export.checkpoint.index import open_checkpoint
from lf_export.errors import InputError
from lf_export.formats import FORMATS
from lf_export.formats.linears import group_size_for, linear_names
from lf_export.steps.quantize import TargetPlan, format_options

OPTIONS: dict[str, dict[str, Any]] = {"gptq": {}, "awq": {}, "onnx": {"precision": "int4"}}


def opened(name: str, model: Path, out: Path, config: dict[str, Any] | None = None, **options: Any) -> Any:
    """The format's target, which asks for nothing but shapes when it is opened."""
    checkpoint = open_checkpoint(model)
    checkpoint.config.update(config or {})
    plan = TargetPlan(name, name, out, OPTIONS[name] | options)
    return FORMATS[name].open(checkpoint, out, format_options(plan, 1), "")


@pytest.mark.parametrize(
    ("intermediate", "size"), [(128, 64), (96, 32), (48, 16), (40, -1)], ids=["64", "32", "16", "none"]
)
def test_auto_takes_the_largest_group_size_that_divides_every_width(
    tmp_path: Path, intermediate: int, size: int
) -> None:
    checkpoint = open_checkpoint(tiny_model(tmp_path / "model", tokenizer=False, intermediate_size=intermediate))
    assert group_size_for(checkpoint, "auto", lambda *_: None) == size


@pytest.mark.parametrize("name", OPTIONS)
def test_a_group_size_that_does_not_divide_names_the_widths_and_what_would_do(name: str, tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "model", tokenizer=False, intermediate_size=96)
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError) as caught:
        opened(name, folder, tmp_path / "out", group_size=128)
    rows = "" if name == "onnx" else ", -1"  # MatMulNBits has no scale for a whole row
    assert caught.value.message.splitlines() == [
        f"group_size 128 does not divide the input width {width} (model.layers.0.{linear}.weight), "
        f"expected one of 32, 16{rows}"
        for width, linear in ((64, "self_attn.q_proj"), (96, "mlp.down_proj"))
    ]
    assert not list((tmp_path / "out").rglob("*.safetensors"))


@pytest.mark.parametrize("name", OPTIONS)
def test_an_unknown_architecture_is_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "model", tokenizer=False)
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="gpt2"):
        opened(name, folder, tmp_path / "out", {"model_type": "gpt2"})
    assert not list((tmp_path / "out").iterdir())


def test_every_linear_of_every_layer_is_named_in_order(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny_model(tmp_path / "model", tokenizer=False))
    parts = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
    parts += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
    assert list(linear_names(checkpoint)) == [f"model.layers.{layer}.{part}" for layer in (0, 1) for part in parts]
