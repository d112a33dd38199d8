"""The merged model answers as base and adapters do beside each other."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from models import tiny_adapter, tiny_model

from lf_export.checkpoint.adapter import open_adapter
from lf_export.checkpoint.index import open_checkpoint
from lf_export.errors import StepError
from lf_export.steps import merge_logits
from lf_export.steps.merge import MergeOptions, merge_model, verify_model
from lf_export.steps.merge_logits import compare_logits


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("logits") / "base", dtype=torch.bfloat16)


@pytest.fixture(scope="module")
def adapter(base: Path) -> Path:
    return tiny_adapter(base.parent / "adapter", base)


def test_the_manifest_has_the_comparison_and_verify_repeats_it(base: Path, adapter: Path, tmp_path: Path) -> None:
    options = MergeOptions(base, (adapter,), tmp_path / "merged", check_logits=True)
    found = merge_model(options)["merge"]["logits"]
    assert found["tokens"] == 32
    assert found["top1_equal"] >= 30
    assert 0 < found["difference"] < 0.01  # rounding to bfloat16
    assert verify_model(options)["logits"] == found
    written = json.loads((tmp_path / "merged" / "lf-export.json").read_text(encoding="utf-8"))
    assert written["merge"]["logits"] == found


def test_a_merge_that_rounds_nothing_has_the_same_logits(tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base")
    adapters = (tiny_adapter(tmp_path / "one", base), tiny_adapter(tmp_path / "two", base, seed=2))
    options = MergeOptions(base, adapters, tmp_path / "merged", weights=(1.0, -0.5), check_logits=True)
    found = merge_model(options)["merge"]["logits"]
    assert found["top1_equal"] == 32
    assert found["difference"] < 1e-5


def test_the_base_with_the_adapter_beside_it_is_pefts_model(
    base: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    seen = []
    real = merge_logits.logits_of

    def kept(checkpoint: object, ids: list[int], **more: object) -> object:
        seen.append((ids, real(checkpoint, ids, **more)))  # type: ignore[arg-type]
        return seen[-1][1]

    monkeypatch.setattr(merge_logits, "logits_of", kept)
    checkpoint = open_checkpoint(base)
    with pytest.raises(StepError):  # the base alone is another model than the base with the adapter
        compare_logits(checkpoint, [open_adapter(adapter)], [1.0], checkpoint)
    ids, beside = seen[0]
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter).eval()
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([ids])).logits[0].numpy()
    np.testing.assert_allclose(beside, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"use_dora": True}, "is not plain LoRA"),
        ({"modules_to_save": ["lm_head"]}, "replaces weights or rows"),
        ({"target_modules": ["embed_tokens"]}, "replaces weights or rows"),  # PEFT saves the embedding along
    ],
)
def test_what_is_not_compared_says_why(base: Path, tmp_path: Path, config: dict[str, object], says: str) -> None:
    other = tiny_adapter(tmp_path / "adapter", base, **config)
    found = merge_model(MergeOptions(base, (other,), tmp_path / "merged", check_logits=True))["merge"]["logits"]
    assert says in found["not_compared"]


def test_an_unknown_architecture_is_merged_and_not_compared(base: Path, adapter: Path) -> None:
    config = {**json.loads((base / "config.json").read_text(encoding="utf-8")), "model_type": "new"}
    checkpoint = replace(open_checkpoint(base), config=config)
    assert compare_logits(checkpoint, [open_adapter(adapter)], [1.0], checkpoint) == {
        "not_compared": "the walk does not know model_type 'new'"
    }
