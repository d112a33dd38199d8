"""The same recipe on the same machine gives the same bytes; another number of threads the same quantized tensors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Run = Callable[..., Any]


def _made(lf_export: Run, recipe: Callable[..., Path], out: Path, threads: int) -> dict[str, bytes]:
    targets = {
        "four": {"format": "gptq", "bits": 4, "group_size": 32},
        "awq": {"format": "awq", "group_size": 32},
        "q4": {"format": "gguf", "type": "Q4_K_M"},
    }
    path = recipe(bench=None, output=str(out), quantize=targets)
    before = torch.get_num_threads()
    try:
        ended = lf_export("run", path, "--threads", str(threads))
    finally:
        torch.set_num_threads(before)
    assert ended.status == 0, ended.err
    files = (file for file in sorted(out.rglob("*")) if file.is_file() and not file.name.endswith(".step.json"))
    return {file.relative_to(out).as_posix(): file.read_bytes() for file in files}


def test_a_recipe_gives_the_same_bytes_twice_and_the_same_tensors_with_another_number_of_threads(
    lf_export: Run, recipe: Callable[..., Path], tmp_path: Path
) -> None:
    first = _made(lf_export, recipe, tmp_path / "first", 1)
    assert {name.split("/")[0] for name in first} == {"merged", "calibration", "four", "awq", "q4"}
    assert _made(lf_export, recipe, tmp_path / "again", 1) == first
    wider = _made(lf_export, recipe, tmp_path / "wider", 2)
    tensors = [name for name in first if name.endswith((".safetensors", ".gguf"))]
    assert len(tensors) >= 4
    assert [name for name in tensors if wider[name] != first[name]] == []
