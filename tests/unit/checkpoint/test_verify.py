"""The proof repeated on what lies on disk: the right folder passes, each kind of damage is named."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lf_export.checkpoint.adapter import open_adapter
from lf_export.checkpoint.index import open_checkpoint
from lf_export.checkpoint.merge import merge_checkpoint
from lf_export.checkpoint.verify import check_merged
from lf_export.errors import StepError

Make = Callable[..., Path]
WEIGHT = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture
def merged(make_base: Make, make_adapter: Make) -> Path:
    """A base, an adapter, and the folder of their merge."""
    base, adapter = make_base(), make_adapter()
    out = base.parent / "out"
    out.mkdir()
    merge_checkpoint(open_checkpoint(base), [open_adapter(adapter)], out)
    return out


def check(merged: Path, **options: object) -> int:
    base, adapter = merged.parent / "base", merged.parent / "adapter"
    return check_merged(
        open_checkpoint(base),
        [open_adapter(adapter)],
        open_checkpoint(merged),
        **options,  # type: ignore[arg-type]
    ).tensors


def spoil(merged: Path, name: str, tensor: torch.Tensor | None) -> None:
    tensors = load_file(merged / "model.safetensors")
    if tensor is None:
        del tensors[name]
    else:
        tensors[name] = tensor
    save_file(tensors, merged / "model.safetensors")


def test_a_merge_passes(merged: Path) -> None:
    assert check(merged) == 7


def test_a_merge_in_another_dtype_passes(merged: Path) -> None:
    out = merged.parent / "wide"
    out.mkdir()
    base, adapter = open_checkpoint(merged.parent / "base"), open_adapter(merged.parent / "adapter")
    merge_checkpoint(base, [adapter], out, "float32")
    assert check(out) == 7


def test_a_merge_with_another_weight_does_not(merged: Path) -> None:
    with pytest.raises(StepError, match="verification failed: merged weights are"):
        check(merged, weights=[0.9])


def test_a_changed_weight_is_named(merged: Path) -> None:
    weight = load_file(merged / "model.safetensors")[WEIGHT]
    weight[0, 0] += 0.5
    spoil(merged, WEIGHT, weight)
    with pytest.raises(StepError, match=f"{WEIGHT}: verification failed"):
        check(merged)


def test_a_weight_that_nothing_changes_keeps_its_bits(merged: Path) -> None:
    name = "model.layers.1.self_attn.k_proj.weight"
    weight = load_file(merged / "model.safetensors")[name]
    weight.view(torch.int16)[0, 0] ^= 1
    spoil(merged, name, weight)
    with pytest.raises(StepError, match=f"{name}: verification failed: nothing changes it"):
        check(merged)


@pytest.mark.parametrize(
    ("name", "tensor", "says"),
    [
        (WEIGHT, None, f"no {WEIGHT}"),
        ("lm_head.weight", torch.ones(10, 4), "lm_head.weight should not be there"),
        (WEIGHT, torch.ones(6, 5), r"is \[6, 5\], \[6, 4\] was expected"),
    ],
)
def test_a_tensor_too_many_too_few_or_of_another_shape_is_named(
    merged: Path, name: str, tensor: torch.Tensor | None, says: str
) -> None:
    spoil(merged, name, tensor)
    with pytest.raises(StepError, match=says):
        check(merged)
