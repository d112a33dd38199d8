"""The walk over a mixture of experts, against transformers' own model and a plain gathering of each expert's rows."""

from pathlib import Path
from typing import Any

import pytest
import torch
from models import tiny_model
from torch.nn.functional import linear
from walk_data import Keeper, RandomData, random_data

from lf_export.checkpoint.index import open_checkpoint
from lf_export.walk.logits import logits_of
from lf_export.walk.stream import walk

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("mixtral", {"sliding_window": 8}),
    "qwen3_moe": ("qwen3_moe", {"norm_topk_prob": False}),
    "qwen3_moe with a dense layer": ("qwen3_moe", {"mlp_only_layers": [0]}),
    "qwen3_moe with experts in every second layer": ("qwen3_moe", {"decoder_sparse_step": 2, "num_experts": 8}),
}
LINEARS = {"mixtral": ("w1", "w3", "w2"), "qwen3_moe": ("gate_proj", "up_proj", "down_proj")}
BLOCK = {"mixtral": "block_sparse_moe", "qwen3_moe": "mlp"}
DATA = random_data([9, 30, 2, 17, 25, 5], weights={0: 0.5, 3: 2.0})


@pytest.fixture(scope="module", params=MODELS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    family, overrides = MODELS[request.param]
    return family, tiny_model(tmp_path_factory.mktemp("moe") / "model", family, tokenizer=False, **overrides)


def routed_rows(model: Any, family: str, data: RandomData) -> dict[str, list[tuple[int, int, torch.Tensor]]]:
    """Linear → (sample, position, input) of every row that reaches it, computed from transformers' fused tensors."""
    from transformers.activations import ACT2FN

    seen: dict[str, list[tuple[int, int, torch.Tensor]]] = {}
    done = {"samples": 0}

    def look(name: str, experts: Any, args: tuple[torch.Tensor, ...]) -> None:
        hidden, chosen, _ = args
        sample = done["samples"]
        gate_name, up_name, down_name = (f"{name}.experts.{{}}.{part}" for part in LINEARS[family])
        for position, x in enumerate(hidden):
            for number in chosen[position].tolist():
                gate, up = linear(x, experts.gate_up_proj[number]).chunk(2)
                for linear_name in (gate_name, up_name):
                    seen.setdefault(linear_name.format(number), []).append((sample, position, x))
                product = ACT2FN["silu"](gate) * up
                seen.setdefault(down_name.format(number), []).append((sample, position, product))

    for index, layer in enumerate(model.model.layers):
        if hasattr(layer.mlp, "experts"):
            layer.mlp.experts.register_forward_pre_hook(
                lambda module, args, name=f"{index}.{BLOCK[family]}": look(name, module, args)
            )
    with torch.no_grad():
        for each in data.samples:
            model(torch.from_numpy(each.ids).long().unsqueeze(0), use_cache=False)
            done["samples"] += 1
    return seen


def test_every_expert_has_the_moments_of_the_rows_that_were_sent_to_it(case: tuple[str, Path]) -> None:
    from transformers import AutoModelForCausalLM

    family, folder = case
    keeper = Keeper()
    facts = walk(open_checkpoint(folder), DATA, [keeper], batch_tokens=64, dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    seen = routed_rows(model, family, DATA)
    compared = 0
    for index, moments in enumerate(keeper.H):
        for name in (name for name in moments if ".experts." in name):
            rows = seen.pop(f"{index}.{name}", [])
            weight = [DATA.weights[int(DATA.samples[sample].classes[position])] for sample, position, _ in rows]
            fitted = [i for i, (sample, _, _) in enumerate(rows) if sample not in facts.heldout_samples]
            X = torch.stack([rows[i][2].double() * weight[i] ** 0.5 for i in fitted])
            expected = X.t() @ X
            assert keeper.counts[index][name] == len(fitted)
            # fp32 both, the sums in another order, and products of other shapes
            assert float((moments[name].double() - expected).norm() / expected.norm()) < 5e-6
            held = {i for i in range(len(rows)) if i not in fitted}
            judged = keeper.heldout[index][name]
            assert judged.shape[0] == len(held)  # few enough that none is thinned out
            expected_energy = sum(float(rows[i][2].double().square().sum()) * weight[i] for i in held)
            assert float(judged.double().square().sum()) == pytest.approx(expected_energy, rel=1e-5)
            compared += 1
    assert compared > 0
    assert not seen


def test_logits_are_those_of_transformers(case: tuple[str, Path]) -> None:
    from transformers import AutoModelForCausalLM

    _, folder = case
    ids = DATA.samples[1].ids
    with torch.no_grad():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        expected = model(torch.from_numpy(ids).long().unsqueeze(0), use_cache=False).logits[0]
    found = torch.from_numpy(logits_of(open_checkpoint(folder), ids.tolist()))
    # gate and up are multiplied apart, the experts' outputs are summed in another order: seen 3e-7 of the spread
    assert float((found - expected).abs().max()) < 5e-6 * float(expected.std())


def test_a_token_in_no_moment_and_padding_count_for_no_expert(case: tuple[str, Path]) -> None:
    family, folder = case
    data = random_data([9, 30, 2, 17, 25, 5], weights={0: 0.0})
    keeper = Keeper()
    facts = walk(open_checkpoint(folder), data, [keeper], batch_tokens=64, dtype=torch.float32)
    tokens = sum(
        len(each.ids) - len(each.ids) // 2 for i, each in enumerate(data.samples) if i not in facts.heldout_samples
    )
    for counts in keeper.counts:
        first = [
            count for name, count in counts.items() if name.endswith(f".{LINEARS[family][0]}") and ".experts." in name
        ]
        assert not first or sum(first) == 2 * tokens


def test_the_pool_of_a_layer_has_every_token_once(case: tuple[str, Path]) -> None:
    family, folder = case
    found: dict[str, torch.Tensor] = {}

    class Pools(Keeper):
        def layer(self, view: Any) -> None:
            assert all(".experts." in name and not name.endswith(LINEARS[family][2]) for name in view.pools)
            assert len(view.pools) == sum(
                name.endswith(LINEARS[family][:2]) for name in view.moments if "experts" in name
            )
            for name, pool in view.pools.items():
                found[f"{view.index}.{name}"] = pool.moments.H.clone()

    facts = walk(open_checkpoint(folder), DATA, [Pools()], batch_tokens=64, dtype=torch.float32)
    from transformers import AutoModelForCausalLM

    seen = routed_rows(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), family, DATA)
    for name, H in found.items():
        layer = name.partition(".")[0]
        rows = {
            (sample, position): x
            for key, each in seen.items()
            if key.startswith(f"{layer}.") and key.endswith(LINEARS[family][0])
            for sample, position, x in each
            if sample not in facts.heldout_samples
        }
        weights = [DATA.weights[int(DATA.samples[sample].classes[position])] for sample, position in rows]
        X = torch.stack([x.double() for x in rows.values()]) * torch.tensor(weights).double().sqrt().unsqueeze(1)
        assert float((H.double() - X.t() @ X).norm() / (X.t() @ X).norm()) < 5e-6
