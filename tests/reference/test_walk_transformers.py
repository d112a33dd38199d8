from pathlib import Path
from typing import Any

import pytest
import torch
from models import tiny_model
from walk_data import Keeper, random_data

from lf_export.checkpoint.index import open_checkpoint
from lf_export.walk.stream import walk

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0,
              "high_freq_factor": 4.0, "original_max_position_embeddings": 64}},
    "mistral": {"sliding_window": 8},
    "qwen2": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    "qwen3": {},
    "phi3": {"sliding_window": 8},
    "gemma3_text": {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_every_linear_sees_what_it_sees_in_transformers_own_model(family: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = tiny_model(tmp_path / "model", family, tokenizer=False, **FAMILIES[family])
    data = random_data([9, 30, 2, 17, 25, 5])
    keeper = Keeper()
    facts = walk(open_checkpoint(folder), data, [keeper], batch_tokens=64, dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    seen: dict[str, list[torch.Tensor]] = {}
    for name, module in model.model.layers.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(
                lambda _, args, name=name: seen.setdefault(name, []).append(args[0][0].double())
            )
    with torch.no_grad():
        for sample in data.samples:
            model(torch.from_numpy(sample.ids).long().unsqueeze(0), use_cache=False)
    compared = 0
    for index, moments in enumerate(keeper.H):
        for name, H in moments.items():
            X = seen[f"{index}.{name}"]
            fitted = torch.cat([x for i, x in enumerate(X) if i not in facts.heldout_samples])
            held = torch.cat([X[i] for i in facts.heldout_samples])
            expected = fitted.t() @ fitted
            # fp32 both, the sums in another order: seen 2e-7
            assert float((H.double() - expected).norm() / expected.norm()) < 2e-6
            torch.testing.assert_close(keeper.heldout[index][name].double(), held, rtol=1e-4, atol=1e-4)
            compared += 1
    assert compared == sum(isinstance(module, torch.nn.Linear) for module in model.model.layers.modules())
