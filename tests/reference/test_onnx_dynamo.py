"""Every family that the dynamo exporter is offered for, against Transformers' own model on the same tokens."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import tiny_model
from onnx_folders import LLAMA3_ROPE

from lf_export.checkpoint.index import open_checkpoint
from lf_export.formats.onnx import FORMAT
from lf_export.formats.onnx_options import OnnxOptions
from lf_export.runtimes.onnx import open_session

IDS = list(range(5, 70))
CASES: dict[str, dict[str, Any]] = {
    "llama": {"rope_parameters": LLAMA3_ROPE, "dtype": torch.bfloat16},
    "qwen2": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    "qwen3": {"tie_word_embeddings": False, "head_dim": 32},
    "phi3": {"tie_word_embeddings": False, "original_max_position_embeddings": 512, "sliding_window": 16},
    "gemma3_text": {"sliding_window": 8, "num_hidden_layers": 6},
}


@pytest.mark.parametrize("family", CASES)
def test_the_graph_gives_transformers_logits(family: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = tiny_model(tmp_path / "model", family, **CASES[family])
    folder = tmp_path / "artifact"
    folder.mkdir()
    options = OnnxOptions(precision="fp32", exporter="dynamo")
    facts = FORMAT.open(open_checkpoint(model), folder, options, "").finish()
    assert facts["verified"]["greedy_equal"] == 48
    reference = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.inference_mode():
        expected = reference(input_ids=torch.tensor([IDS]), use_cache=False).logits[0, :-1].numpy()
    (found,) = open_session(folder, 1).score(IDS[:20], [IDS[20:]], [0])
    np.testing.assert_allclose(found, expected[19:], atol=5e-5)  # float32 sums in another order
