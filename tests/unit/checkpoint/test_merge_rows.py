"""Blocks of rows: where they end, what they hold, and which results are refused."""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from lf_export.checkpoint import rows
from lf_export.checkpoint.adapter import open_adapter
from lf_export.checkpoint.edits import plan_edits
from lf_export.checkpoint.index import open_checkpoint
from lf_export.checkpoint.proof import Proof
from lf_export.checkpoint.rows import Rows
from lf_export.errors import InputError, StepError

Make = Callable[..., Path]
Tensors = Callable[..., dict[str, torch.Tensor]]
WEIGHT = "model.layers.0.self_attn.q_proj.weight"


@pytest.mark.parametrize("height", [0, 1, 63, 64, 511, 512, 1023, 1024, 1100, 5632, 32000])
@pytest.mark.parametrize("width", [1, 576, 2048, 5632, 1 << 22])
def test_blocks_cover_all_rows_and_none_is_small(height: int, width: int) -> None:
    edges = rows._edges(height, width)
    sizes = [stop - first for first, stop in pairwise(edges)]
    assert sum(sizes) == height
    assert edges[0] == 0
    assert all(size >= min(64, height) for size in sizes)
    assert all(size % 64 == 0 for size in sizes[:-1])
    step = max(64, (1 << 20) // width)
    assert all(size < 2 * step + 1 for size in sizes)


def test_a_row_block_of_a_product_equals_the_product_s_rows() -> None:
    # the law that blocks rest on: every block of 64 rows and more gives the bits of the whole
    generator = torch.Generator().manual_seed(3)
    for height, width, rank in [(576, 1536, 16), (1536, 576, 64), (300, 100, 3), (2048, 256, 256), (129, 2049, 8)]:
        a, b = torch.randn(rank, width, generator=generator), torch.randn(height, rank, generator=generator)
        whole = b @ a
        for step in (64, 128, 192):
            edges = [*range(0, max(height - step, 0) + 1, step), height]
            parts = [b[first:stop] @ a for first, stop in pairwise(edges)]
            assert torch.equal(torch.cat(parts), whole), (height, width, rank, step)


def test_a_product_that_is_wrong_fails_the_verification(
    make_base: Make, make_adapter: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapter = open_checkpoint(make_base()), open_adapter(make_adapter())
    multiply = torch.mm

    def wrong(b: torch.Tensor, a: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        return multiply(b, a * 1.1, out=out)

    monkeypatch.setattr(torch, "mm", wrong)
    with pytest.raises(StepError, match=f"{WEIGHT}: verification failed"):
        list(Rows().of(plan_edits(base, [adapter], [1.0])[WEIGHT], torch.bfloat16, Proof()))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_weight_that_is_not_finite_is_named_with_its_file(
    make_base: Make, make_adapter: Make, base_tensors: Tensors, value: float
) -> None:
    tensors = base_tensors()
    tensors[WEIGHT][5, 3] = value
    base, adapter = open_checkpoint(make_base(tensors)), open_adapter(make_adapter())
    with pytest.raises(InputError, match=rf"model\.safetensors: {WEIGHT}: 1 of 24 values are NaN or infinite"):
        list(Rows().of(plan_edits(base, [adapter], [1.0])[WEIGHT], torch.bfloat16, Proof()))


def test_a_result_that_overflows_its_dtype_is_named(make_base: Make, base_tensors: Tensors) -> None:
    tensors = base_tensors(torch.float32)
    tensors[WEIGHT][5, 3] = 65519.0  # rounds to the largest float16
    base = open_checkpoint(make_base(tensors))
    (part,) = Rows().of(plan_edits(base, [], [])[WEIGHT], torch.float16, Proof())
    assert torch.isfinite(part).all()
    tensors[WEIGHT][5, 3] = 65520.0  # rounds to infinity
    base = open_checkpoint(make_base(tensors, name="larger"))
    with pytest.raises(InputError, match="1 merged values do not fit float16"):
        list(Rows().of(plan_edits(base, [], [])[WEIGHT], torch.float16, Proof()))


def test_an_empty_tensor_has_no_blocks(make_base: Make) -> None:
    base = open_checkpoint(make_base({"x": torch.zeros(0, 4)}))
    assert list(Rows().of(plan_edits(base, [], [])["x"], torch.float16, Proof())) == []
