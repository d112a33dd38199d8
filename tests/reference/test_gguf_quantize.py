"""Our GGUF files against llama-quantize's and the gguf package's."""

import itertools
import json
from pathlib import Path

import gguf
import gguf_folders
import numpy as np
import pytest

from lf_export.checkpoint.index import open_checkpoint
from lf_export.formats.gguf import FORMAT, GgufOptions
from lf_export.formats.gguf_arch import plan_tensors
from lf_export.formats.gguf_plan import plan_file
from lf_export.formats.gguf_types import SCHEMES
from lf_export.quant.ggml import TYPES, quantize

GOLDEN = json.loads(Path(__file__).with_name("gguf_llama_quantize.json").read_text(encoding="utf-8"))
DIGESTS = GOLDEN["sha256 of names, types and bytes"]


@pytest.mark.parametrize("imatrix", [False, True], ids=["plain", "imatrix"])
@pytest.mark.parametrize("shape", ["divisible", "fallback"])
def test_every_scheme_has_the_bytes_of_llama_quantize(tmp_path: Path, shape: str, imatrix: bool) -> None:
    checkpoint = open_checkpoint(gguf_folders.arithmetic_folder(tmp_path / "model", shape))
    suffix = " imatrix" if imatrix else ""
    types = tuple(name for name in SCHEMES if f"{shape} {name}{suffix}" in DIGESTS)
    found = gguf_folders.digests(checkpoint, tmp_path, types, gguf_folders.layer_views(checkpoint) if imatrix else None)
    assert found == {name: DIGESTS[f"{shape} {name}{suffix}"] for name in types}
    assert len(types) >= (23 if imatrix else 20)


@pytest.mark.parametrize("imatrix", [False, True], ids=["plain", "imatrix"])
def test_every_scheme_gives_each_layer_the_types_of_llama_quantize(tmp_path: Path, imatrix: bool) -> None:
    checkpoint = open_checkpoint(gguf_folders.arithmetic_folder(tmp_path / "model", "deep"))
    plan, known = plan_tensors(checkpoint), set()
    for scheme in SCHEMES.values():
        expected = GOLDEN["types of the shape deep, layer by layer"].get(scheme.name + " imatrix" * imatrix)
        if expected is None:
            continue
        known.add(scheme.name)
        found: dict[str, list[str]] = {}
        for each in plan_file(plan, scheme, checkpoint, "imatrix" if imatrix else "rtn"):
            if len(each.tensor.shape) == 2:
                part = each.tensor.name.removesuffix(".weight").removeprefix(f"blk.{each.tensor.layer}.")
                found.setdefault(part, []).append(each.kind.name)
        assert {part: _runs(kinds) for part, kinds in found.items()} == expected, scheme.name
    unquantized, needing = {"F32", "F16", "BF16"}, {scheme.name for scheme in SCHEMES.values() if scheme.needs_imatrix}
    assert known == set(SCHEMES) - unquantized - ({"Q8_0"} if imatrix else needing)


def _runs(kinds: list[str]) -> str:
    counts = [(kind, len(list(run))) for kind, run in itertools.groupby(kinds)]
    return " ".join(f"{count}x{kind}" if count > 1 else kind for kind, count in counts)


def test_the_table_of_types_is_that_of_the_gguf_package() -> None:
    for kind in TYPES.values():
        theirs = gguf.GGMLQuantizationType[kind.name]
        assert (kind.id, (kind.block, kind.nbytes)) == (theirs.value, gguf.GGML_QUANT_SIZES[theirs])


def test_file_types_are_those_of_the_gguf_package() -> None:
    for scheme in SCHEMES.values():
        names = [f"MOSTLY_{scheme.name}", f"ALL_{scheme.name}"]
        assert any(scheme.file_type == getattr(gguf.LlamaFileType, name, None) for name in names)


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_llama_cpp_quantizes_blocks_as_the_gguf_package_does(name: str) -> None:
    W = gguf_folders.arithmetic((33, 96), 5, 0.7)
    ours = quantize(W, TYPES[name])
    assert np.array_equal(ours, gguf.quants.quantize(W, gguf.GGMLQuantizationType[name]))


@pytest.mark.parametrize(("name", "steps"), [("Q8_0", 127), ("Q6_K", 31), ("Q5_K", 15), ("Q4_K", 7)])
def test_the_gguf_package_reads_back_what_was_quantized(name: str, steps: int) -> None:
    W = gguf_folders.arithmetic((16, 512), 6, 1.0)
    back = gguf.quants.dequantize(quantize(W, TYPES[name]), gguf.GGMLQuantizationType[name])
    # Half a step of the widest block, with room for scales that are themselves rounded to 6 or 8 bits.
    assert np.abs(back - W).max() < 1.5 * np.abs(W).max() / steps


def test_half_precision_is_rounded_as_the_gguf_package_rounds_it(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(gguf_folders.arithmetic_folder(tmp_path / "model", "fallback"))
    FORMAT.open(checkpoint, tmp_path, GgufOptions(types=("F16", "BF16", "F32"), name="m"), "digest").finish()
    exact = gguf_folders.tensors_of(tmp_path / "m-F32.gguf")
    for name in ("F16", "BF16"):
        for tensor, (kind, data) in gguf_folders.tensors_of(tmp_path / f"m-{name}.gguf").items():
            expected = gguf.quants.quantize(exact[tensor][1], gguf.GGMLQuantizationType[kind])
            assert np.array_equal(data.view(np.uint8), expected.view(np.uint8)), tensor
