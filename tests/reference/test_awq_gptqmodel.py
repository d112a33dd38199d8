"""The folders that are written, read by gptqmodel's kernels: same logits as our own unpacking."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from models import tiny_model
from walk_data import random_data

from lf_export.checkpoint.index import open_checkpoint
from lf_export.formats.awq import FORMAT
from lf_export.formats.awq_plan import AwqOptions
from lf_export.runtimes import runtime
from lf_export.walk.stream import walk

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "phi3", "gemma3_text")
IDS = list(range(20, 60))

# gptqmodel patches what it imports, so it gets a process of its own. Its torch kernel needs no compiler; AwqTorchLinear
# multiplies in fp16.
_CHILD = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AwqConfig
torch.set_num_threads(1)
ids = torch.tensor([json.load(sys.stdin)])
for folder in sys.argv[1:]:
    config = json.load(open(f"{folder}/config.json"))["quantization_config"]
    read = AwqConfig(bits=config["bits"], group_size=config["group_size"], backend="torch_awq")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, quantization_config=read)
    kernels = {name: type(module).__name__ for name, module in model.named_modules() if hasattr(module, "qweight")}
    with torch.no_grad():
        logits = model(ids).logits
    torch.save({"kernels": kernels, "logits": logits}, f"{folder}/logits.pt")
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("gptqmodel")
    written = {}
    data = random_data([40, 60, 50, 70] * 4)
    for family in FAMILIES:
        base = open_checkpoint(tiny_model(root / family, family, dtype=torch.bfloat16))
        written[family] = root / f"{family}-awq"
        written[family].mkdir()
        target = FORMAT.open(base, written[family], AwqOptions(group_size=32), data.digest)
        walk(base, data, [target])
        target.finish()
    result = subprocess.run(
        [sys.executable, "-c", _CHILD, *map(str, written.values())],
        input=json.dumps(IDS),
        env={**os.environ, "OMP_NUM_THREADS": "1", "GPTQMODEL_CPU_WORKERS": "2"},
        text=True,
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return written


@pytest.mark.parametrize("family", FAMILIES)
def test_gptqmodel_gives_the_logits_of_our_own_unpacking(family: str, folders: dict[str, Path]) -> None:
    theirs = torch.load(folders[family] / "logits.pt")
    assert set(theirs["kernels"].values()) == {"AwqTorchLinear"}
    assert len(theirs["kernels"]) == (8 if family == "phi3" else 14)
    (ours,) = runtime("torch").open_session(folders[family], 1).score(IDS[:1], [IDS[1:]], [0])
    (before,) = runtime("torch").open_session(folders[family].parent / family, 1).score(IDS[:1], [IDS[1:]], [0])
    expected, unquantized = torch.from_numpy(ours), torch.from_numpy(before).float()
    # their kernel multiplies in fp16; what quantization itself changes is 20 times the bound or more
    assert float((theirs["logits"][0, :-1] - expected).norm() / expected.norm()) < 5e-3
    assert float((unquantized - expected).norm() / expected.norm()) > 0.1
