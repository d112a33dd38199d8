"""How long quantizing takes is counted from shapes and from rates that are measured once."""

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import pytest
import torch
from models import tiny_model

from lf_export.checkpoint.index import Checkpoint, open_checkpoint
from lf_export.formats import FORMATS
from lf_export.formats.linears import group_shapes
from lf_export.formats.pace import Pace, feedback_operations
from lf_export.quant.moments import Moments

Quantize = Callable[[torch.Tensor, Moments], object]


class Counted(Pace):
    """A pace at which every operation and every weight takes a second of its own."""

    def __init__(self) -> None:
        super().__init__(1)
        self.operations = 0.0
        self.weights: dict[Hashable, float] = {}

    def products(self, operations: float, dtype: torch.dtype = torch.float32) -> float:  # noqa: ARG002
        """One second each."""
        self.operations += operations
        return operations

    def rounding(self, key: Hashable, quantize: Quantize, weights: float) -> float:  # noqa: ARG002
        """One second each."""
        self.weights[key] = self.weights.get(key, 0) + weights
        return weights


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return open_checkpoint(tiny_model(tmp_path / "model", "llama"))


def weights_of(checkpoint: Checkpoint) -> int:
    return sum(out * n for group in group_shapes(checkpoint) for out, n in group)


def test_error_feedback_costs_one_factor_for_each_input_and_one_pass_for_each_linear() -> None:
    assert feedback_operations([[(4, 6), (2, 6)], [(5, 3)]]) == 6**3 / 3 + 6 * 36 + 3**3 / 3 + 5 * 9
    assert feedback_operations([[(4, 6)]], rounds=3) == 6**3 / 3 + 3 * 4 * 36


def test_shapes_are_those_of_linears_that_share_an_input(checkpoint: Checkpoint) -> None:
    shape = checkpoint.info("model.layers.0.self_attn.q_proj.weight").shape
    first = next(iter(group_shapes(checkpoint)))
    assert len(first) == 3
    assert first[0] == tuple(shape)


@pytest.mark.parametrize(
    ("options", "rounds"), [({"bits": 4, "group_size": 16}, 1), ({"bits": 4.5, "group_size": 16}, 2)]
)
def test_a_linear_is_counted_once_for_each_number_of_bits(
    checkpoint: Checkpoint, options: dict[str, Any], rounds: int
) -> None:
    pace, kind = Counted(), FORMATS["gptq"]
    assert kind.seconds(checkpoint, kind.options(**options), pace) == pace.operations + sum(pace.weights.values())
    assert sum(pace.weights.values()) == rounds * weights_of(checkpoint)
    assert pace.operations == feedback_operations(group_shapes(checkpoint), rounds)


@pytest.mark.parametrize(("method", "fed_back"), [("gptq", True), ("imatrix", False), ("rtn", False)])
def test_each_file_is_rounded_and_only_error_feedback_needs_factors(
    checkpoint: Checkpoint, method: str, fed_back: bool
) -> None:
    pace, kind = Counted(), FORMATS["gguf"]
    kind.seconds(checkpoint, kind.options(types=("Q5_0", "Q4_0", "F16"), method=method), pace)
    assert pace.operations == (feedback_operations(group_shapes(checkpoint), 2) if fed_back else 0)
    assert sum(pace.weights.values()) >= 2 * weights_of(checkpoint)


def test_the_search_of_scales_is_what_awq_spends_products_on(checkpoint: Checkpoint) -> None:
    kind = FORMATS["awq"]
    with_search, without = Counted(), Counted()
    kind.seconds(checkpoint, kind.options(group_size=16), with_search)
    kind.seconds(checkpoint, kind.options(group_size=16, scale_search=False), without)
    assert with_search.operations > 0
    assert without.operations == 0
    assert sum(without.weights.values()) == weights_of(checkpoint)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gptq", {"bits": 4, "group_size": 16}),
        ("awq", {"group_size": 16}),
        ("gguf", {"types": ("Q4_0",), "method": "gptq"}),
        ("gguf", {"types": ("Q4_0",), "method": "imatrix"}),
        ("gguf", {"types": ("Q4_0",), "method": "rtn"}),
    ],
)
def test_what_is_measured_is_the_quantizer_itself(checkpoint: Checkpoint, name: str, options: dict[str, Any]) -> None:
    seconds = FORMATS[name].seconds(checkpoint, FORMATS[name].options(**options), Pace(1))
    assert seconds is not None
    assert seconds > 0


def test_a_rate_is_measured_once() -> None:
    pace, runs = Pace(1), []
    for weights in (10, 20):
        pace.rounding("key", lambda W, _: runs.append(W.shape), weights)
    measured = len(runs)
    assert pace.rounding("key", lambda W, _: runs.append(W.shape), 40) == pytest.approx(
        2 * pace.rounding("key", lambda W, _: runs.append(W.shape), 20)
    )
    assert len(runs) == measured
    assert pace.rate() == pace.rate()
