"""How much a layer's output changes, against the whole model run by transformers with that weight."""

from pathlib import Path
from typing import Any

import pytest
import torch
from models import tiny_model
from walk_data import RandomData, random_data

from lf_export.checkpoint.index import open_checkpoint
from lf_export.walk.stream import walk

DATA = random_data([40, 30, 50, 60, 20, 45, 38, 70] * 3)  # the last held-out sample is among them
HELD_OUT = 12  # of 24 samples, one in 16


def changed(W: torch.Tensor) -> torch.Tensor:
    return W + 0.01 * torch.randn(W.shape, generator=torch.Generator().manual_seed(1))


class Asker:
    """Asks what layers respond, and keeps it."""

    needs_moments = True

    def __init__(self) -> None:
        self.found: dict[tuple[int, str], float] = {}
        self.none: list[bool] = []

    def layer(self, view: Any) -> None:
        """Change some linears, one at a time."""
        self.none.append(view.response is None)
        if view.response is None:
            return
        for name in ("self_attn.k_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"):
            W = view.weights[f"{name}.weight"]
            before = W.clone()
            self.found[view.index, name] = view.response({name: changed(W)})
            assert torch.equal(view.weights[f"{name}.weight"], before)
        assert view.response({}) == 0.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("response") / "m", num_hidden_layers=3, tokenizer=False)


def _ask(folder: Path, data: RandomData) -> Asker:
    asker = Asker()
    facts = walk(open_checkpoint(folder), data, [asker], dtype=torch.float32, batch_tokens=128)
    assert facts.heldout_samples == ((HELD_OUT,) if len(data.samples) > 1 else ())
    return asker


def test_the_change_is_the_share_of_the_residual_output_at_tokens_that_predict_call_tokens(folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    weighted = RandomData(DATA.samples, {3: 2.0})  # the same for all call tokens: the mean does not see it
    found = _ask(folder, weighted).found
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    sample = DATA.samples[HELD_OUT]
    ids = torch.from_numpy(sample.ids).long()[None]
    rows = [j for j in range(len(sample.ids) - 1) if sample.classes[j + 1] >= 3]
    with torch.no_grad():
        before = model(ids, output_hidden_states=True).hidden_states
        for (index, name), value in found.items():
            if index == 2:  # transformers gives the last one after the final norm
                continue
            parameter = model.get_parameter(f"model.layers.{index}.{name}.weight")
            kept = parameter.clone()
            parameter.copy_(changed(kept))
            after = model(ids, output_hidden_states=True).hidden_states[index + 1][0, rows]
            parameter.copy_(kept)
            y = before[index + 1][0, rows]
            expected = ((after - y).square().sum(1) / y.square().sum(1)).mean()
            assert value == pytest.approx(float(expected), rel=1e-3)


def test_the_answer_does_not_depend_on_the_dtype_of_the_pass(folder: Path) -> None:
    asker = Asker()
    walk(open_checkpoint(folder), DATA, [asker], dtype=torch.bfloat16)
    for key, value in _ask(folder, DATA).found.items():
        assert asker.found[key] == pytest.approx(value, rel=0.05)  # the layer's input is rounded, the change is not


def test_a_single_sample_holds_nothing_out_and_nothing_responds(folder: Path) -> None:
    assert _ask(folder, random_data([50])).none == [True] * 3
