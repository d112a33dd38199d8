"""The folders that are written, read by gptqmodel's kernels: same logits as our own unpacking."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import tiny_model
from safetensors.torch import load_file
from walk_data import random_data

from lf_export.checkpoint.index import open_checkpoint
from lf_export.formats.gptq import FORMAT, GptqOptions
from lf_export.formats.gptq_options import choices_of
from lf_export.quant import dequantize_stored
from lf_export.quant.pack import STORED
from lf_export.runtimes import runtime
from lf_export.walk.stream import walk

VARIANTS = {
    "sym": {},
    "asym": {"sym": False},
    "eight-bits": {"bits": 8, "group_size": -1},
    "desc-act": {"desc_act": True},
    "three-bits": {"bits": 3, "sym": False},
}

# gptqmodel patches what it imports, so it gets a process of its own. Its torch kernel needs no compiler.
_CHILD = """
import json, sys, torch
from transformers import AutoModelForCausalLM, GPTQConfig
torch.set_num_threads(1)
ids = torch.tensor(json.load(sys.stdin))
for folder in sys.argv[1:]:
    bits = json.load(open(f"{folder}/config.json"))["quantization_config"]["bits"]
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, quantization_config=GPTQConfig(bits=bits, backend="gptq_torch"),
    )
    kernels = sorted({type(module).__name__ for module in model.modules() if hasattr(module, "qweight")})
    with torch.no_grad():
        logits = model(ids).logits
    torch.save({"kernels": kernels, "logits": logits}, f"{folder}/logits.pt")
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gptqmodel") / "base"
    return tiny_model(folder, dtype=torch.bfloat16, hidden_size=128, intermediate_size=256, head_dim=32)


@pytest.fixture(scope="module")
def folders(base: Path) -> dict[str, Path]:
    data = random_data([40, 60, 50, 70] * 4)
    written = {name: base.parent / name for name in VARIANTS}
    targets = []
    for name, folder in written.items():
        folder.mkdir()
        options = GptqOptions(**{"group_size": 64, **VARIANTS[name]})
        targets.append(FORMAT.open(open_checkpoint(base), folder, options, data.digest))
    walk(open_checkpoint(base), data, targets)
    for target in targets:
        target.finish()
    _child(_CHILD, *written.values())
    return written


def _child(code: str, *folders: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, folders)],
        input=json.dumps(IDS.tolist()),
        env={**os.environ, "OMP_NUM_THREADS": "1", "GPTQMODEL_CPU_WORKERS": "2"},
        text=True,
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]


# q, k and v differ; a linear that is not quantized; a width of its own for down_proj
OVERRIDES = {
    "*.down_proj": {"bits": 8},
    "*.v_proj": {"group_size": 32},
    "model.layers.0.self_attn.o_proj": {"skip": True},
    "model.layers.1.mlp.*": {"bits": 2},
    "*.q_proj": {"bits": 3},
}

_THEIR_LOADER = """
import json, sys, torch
from gptqmodel import GPTQModel
torch.set_num_threads(1)
ids = torch.tensor(json.load(sys.stdin))
for folder in sys.argv[1:]:
    model = GPTQModel.load(folder, device="cpu", backend="gptq_torch", dtype=torch.float16).model
    quantized = {name: module for name, module in model.named_modules() if hasattr(module, "qweight")}
    kernels = {name: [module.bits, module.group_size] for name, module in quantized.items()}
    with torch.no_grad():
        logits = model(ids).logits
    torch.save({"kernels": kernels, "logits": logits}, f"{folder}/logits.pt")
"""

IDS = torch.randint(0, 320, (2, 40), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", VARIANTS)
def test_gptqmodel_gives_the_logits_of_our_own_unpacking(name: str, base: Path, folders: dict[str, Path]) -> None:
    from transformers import AutoModelForCausalLM

    theirs = torch.load(folders[name] / "logits.pt")
    assert theirs["kernels"] == ["TorchLinear"]
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tensors = load_file(folders[name] / "model.safetensors")
    bits = json.loads((folders[name] / "config.json").read_text())["quantization_config"]["bits"]
    replaced = 0
    with torch.no_grad():
        before = model(IDS).logits
        for parameter_name, parameter in model.named_parameters():
            linear = parameter_name.removesuffix(".weight")
            if f"{linear}.qweight" in tensors:
                parameter.copy_(dequantize_stored({part: tensors[f"{linear}.{part}"] for part in STORED}, bits))
                replaced += 1
        ours = model(IDS).logits
    assert replaced == 14
    # their kernel multiplies in fp16: seen 7e-4; what quantization itself changes is 25 times that or more
    assert float((theirs["logits"] - ours).norm() / ours.norm()) < 2e-3
    assert float((ours - before).norm() / ours.norm()) > 1e-2


def _written(base: Path, folder: Path, **options: Any) -> Path:
    folder.mkdir()
    data = random_data([40, 60, 50, 70] * 4)
    target = FORMAT.open(open_checkpoint(base), folder, GptqOptions(group_size=64, **options), data.digest)
    walk(open_checkpoint(base), data, [target])
    target.finish()
    return folder


def test_gptqmodels_loader_gives_each_linear_its_own_scheme_and_the_logits_of_our_runtime(
    base: Path, tmp_path: Path
) -> None:
    folder = _written(base, tmp_path / "mixed", overrides=OVERRIDES)
    _child(_THEIR_LOADER, folder)
    theirs = torch.load(folder / "logits.pt")
    choices = choices_of(open_checkpoint(base), GptqOptions(group_size=64, overrides=OVERRIDES))[1]
    assert theirs["kernels"] == {name: [each.bits, each.group_size] for name, (each,) in choices.items()}
    assert len(theirs["kernels"]) == 13
    _same_logits(folder, theirs["logits"], 5e-3)  # all of their model is in fp16, ours in fp32


def test_transformers_loads_a_folder_with_skipped_linears(base: Path, tmp_path: Path) -> None:
    folder = _written(base, tmp_path / "skipped", overrides={"*.1.self_attn.*": {"skip": True}})
    _child(_CHILD, folder)
    _same_logits(folder, torch.load(folder / "logits.pt")["logits"], 2e-3)  # as above


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("experts")
    wide = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32, "moe_intermediate_size": 128}
    return _written(tiny_model(root / "base", "qwen3_moe", dtype=torch.bfloat16, **wide), root / "gptq")


def test_gptqmodels_loader_gives_a_mixture_of_experts_the_logits_of_our_runtime(experts: Path) -> None:
    _child(_THEIR_LOADER, experts)
    theirs = torch.load(experts / "logits.pt")
    assert len(theirs["kernels"]) == 2 * (4 + 4 * 3)
    ours = torch.from_numpy(np.stack(runtime("torch").open_session(experts, 1).score((), IDS.tolist(), [1, 1])))
    difference = (theirs["logits"][:, : ours.shape[1]].float() - ours).norm(dim=-1) / ours.norm(dim=-1)
    # all of their model is in fp16, ours in fp32: a token between two experts may go to the other one
    assert float((difference < 5e-3).float().mean()) > 0.9


def test_transformers_leaves_experts_without_weights_as_loads_in_says(experts: Path) -> None:
    _child(_CHILD, experts)
    theirs = torch.load(experts / "logits.pt")
    ours = torch.from_numpy(np.stack(runtime("torch").open_session(experts, 1).score((), IDS.tolist(), [1, 1])))
    difference = theirs["logits"][:, : ours.shape[1]] - ours
    assert float(difference.norm() / ours.norm()) > 0.1


def _same_logits(folder: Path, theirs: torch.Tensor, tolerance: float) -> None:
    ours = torch.from_numpy(np.stack(runtime("torch").open_session(folder, 1).score((), IDS.tolist(), [1, 1])))
    theirs = theirs[:, : ours.shape[1]].float()
    assert float((theirs - ours).norm() / ours.norm()) < tolerance


def test_transformers_does_not_hand_on_what_deviates(base: Path, tmp_path: Path) -> None:
    folder = _written(base, tmp_path / "mixed", overrides={"*.down_proj": {"bits": 8}})
    with pytest.raises(AssertionError, match="ignore_mismatched_sizes"):
        _child(_CHILD, folder)
    assert not (folder / "logits.pt").exists()
