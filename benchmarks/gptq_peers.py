"""The peers' side of `benchmarks/gptq.py`; runs in their own environment and imports nothing of lf-export.

    python benchmarks/gptq_peers.py gptqmodel|llmcompressor MODEL DATA OUT gptq|awq
    python benchmarks/gptq_peers.py logits MODEL DATA OUT

DATA is a JSON file: lists of token ids to calibrate with, or for `logits` a list of {"ids", "positions"}.
"""

import json
import sys
from pathlib import Path
from typing import Any

BITS, GROUP_SIZE = 4, 64


def gptqmodel(model: str, data: list[list[int]], out: str, method: str) -> None:
    """Quantize with gptqmodel and its defaults, 4 bits; GPTQ symmetric, AWQ in the layout `gemm`."""
    from gptqmodel import BACKEND, GPTQModel, QuantizeConfig
    from gptqmodel.quantization import FORMAT, METHOD

    kind = {"quant_method": METHOD.AWQ, "format": FORMAT.GEMM} if method == "awq" else {"sym": True}
    config = QuantizeConfig(bits=BITS, group_size=GROUP_SIZE, **kind)
    loaded = GPTQModel.load(model, config, device="cpu", backend=BACKEND.AUTO)
    samples = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in data]
    # left to itself it takes a kernel for AWQ that needs CUDA
    loaded.quantize(samples, batch_size=1, backend=BACKEND.AWQ_TORCH if method == "awq" else BACKEND.AUTO)
    loaded.save(out)


def llmcompressor(model: str, data: list[list[int]], out: str, method: str) -> None:
    """Quantize with llm-compressor and its defaults, 4 bits; GPTQ symmetric, AWQ with zeros."""
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier
    from llmcompressor.pipelines.cache import IntermediatesCache

    if method == "awq":  # pinning memory needs an accelerator
        IntermediatesCache._pin_intermediate = classmethod(lambda cls, intermediate: None)  # noqa: ARG005, SLF001
    symmetric = method == "gptq"
    weights = QuantizationArgs(num_bits=BITS, type="int", symmetric=symmetric, strategy="group", group_size=GROUP_SIZE)
    scheme = QuantizationScheme(targets=["Linear"], weights=weights)
    modifier = {"gptq": GPTQModifier, "awq": QuantizationModifier}[method]
    recipe = [modifier(config_groups={"group_0": scheme}, ignore=["lm_head"])]
    oneshot(
        model=model,
        dataset=Dataset.from_list([{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in data]),
        recipe=[AWQModifier(), *recipe] if method == "awq" else recipe,
        num_calibration_samples=len(data),
        max_seq_length=max(map(len, data)),
        output_dir=out,
    )


def logits(model: str, data: list[dict[str, Any]], out: str) -> None:
    """Logits of a compressed-tensors folder at the positions asked for, decompressed, in fp32."""
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM, CompressedTensorsConfig

    loaded = AutoModelForCausalLM.from_pretrained(
        model, dtype=torch.float32, quantization_config=CompressedTensorsConfig(run_compressed=False)
    ).eval()
    rows = []
    with torch.inference_mode():
        for item in data:
            hidden = loaded.model(torch.tensor([item["ids"]])).last_hidden_state[0, item["positions"]]
            rows.append(loaded.lm_head(hidden).float().numpy())
    np.save(out, np.concatenate(rows))


TASKS = {"gptqmodel": gptqmodel, "llmcompressor": llmcompressor, "logits": logits}

if __name__ == "__main__":
    task, model_folder, data_file, *rest = sys.argv[1:]
    TASKS[task](model_folder, json.loads(Path(data_file).read_text(encoding="utf-8")), *rest)
