"""Our GGUF files of mixtures of experts against llama-quantize's."""

import itertools
import json
from pathlib import Path

import gguf_expert_folders
import gguf_folders
import pytest

from lf_export.checkpoint.index import open_checkpoint
from lf_export.formats.gguf_arch import plan_tensors
from lf_export.formats.gguf_plan import plan_file
from lf_export.formats.gguf_types import SCHEMES

GOLDEN = json.loads(Path(__file__).with_name("gguf_llama_quantize_experts.json").read_text(encoding="utf-8"))
DIGESTS, TYPES = GOLDEN["sha256 of names, types and bytes"], GOLDEN["types, layer by layer"]


@pytest.mark.parametrize("imatrix", [False, True], ids=["plain", "imatrix"])
@pytest.mark.parametrize("shape", ["mixtral", "qwen3moe"])
def test_files_of_experts_have_the_bytes_of_llama_quantize(tmp_path: Path, shape: str, imatrix: bool) -> None:
    checkpoint = open_checkpoint(gguf_expert_folders.expert_folder(tmp_path / "model", shape))
    suffix = " imatrix" if imatrix else ""
    types = tuple(name for name in SCHEMES if f"{shape} {name}{suffix}" in DIGESTS)
    views = gguf_expert_folders.expert_views(checkpoint) if imatrix else None
    found = gguf_folders.digests(checkpoint, tmp_path, types, views)
    assert found == {name: DIGESTS[f"{shape} {name}{suffix}"] for name in types}
    assert len(types) == 10


@pytest.mark.parametrize("shape", ["mixtral", "qwen3moe", "few"])
def test_every_scheme_gives_each_layer_of_experts_the_types_of_llama_quantize(tmp_path: Path, shape: str) -> None:
    folder = gguf_expert_folders.expert_folder(tmp_path / "model", shape, layers=16, sparse=True)
    checkpoint = open_checkpoint(folder)
    plan = plan_tensors(checkpoint)
    for key, expected in TYPES[shape].items():
        name, _, imatrix = key.partition(" ")
        found: dict[str, list[str]] = {}
        for each in plan_file(plan, SCHEMES[name], checkpoint, "imatrix" if imatrix else "rtn"):
            if len(each.tensor.shape) > 1:
                part = each.tensor.name.removesuffix(".weight").removeprefix(f"blk.{each.tensor.layer}.")
                found.setdefault(part, []).append(each.kind.name)
        assert {part: _runs(kinds) for part, kinds in found.items()} == expected, key
    quantized = [scheme for scheme in SCHEMES.values() if scheme.name not in {"F32", "F16", "BF16"}]
    plain = sum(not scheme.needs_imatrix for scheme in quantized)
    assert len(TYPES[shape]) == plain + sum(scheme.imatrix for scheme in quantized)


def _runs(kinds: list[str]) -> str:
    counts = [(kind, len(list(run))) for kind, run in itertools.groupby(kinds)]
    return " ".join(f"{count}x{kind}" if count > 1 else kind for kind, count in counts)
