"""A quantized base as what it stands for: GPTQ and NF4 against their layouts written out, and merges into them."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lf_export.checkpoint.index import open_checkpoint
from lf_export.checkpoint.packed import PackedTensor
from lf_export.errors import InputError
from lf_export.quant.gptq import Quantized, dequantize
from lf_export.quant.pack import pack
from lf_export.steps import estimate
from lf_export.steps.dequantize import dequantized
from lf_export.steps.merge import MergeOptions, merge_model, verify_model

NAME = "model.layers.0.self_attn.q_proj"
NF4 = [
    -1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.091050036, 0.0,
    0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0,
]  # fmt: skip
"""The 16 values of https://arxiv.org/abs/2305.14314, appendix E."""

Folder = tuple[Path, torch.Tensor]


def write(folder: Path, tensors: dict[str, torch.Tensor], **config: Any) -> Path:
    folder.mkdir()
    norm = {"model.norm.weight": torch.ones(4, dtype=torch.float16), "model.embed_tokens.weight": torch.ones(6, 64)}
    save_file(tensors | norm, folder / "model.safetensors", {"format": "pt"})
    fields = {"model_type": "llama", "tie_word_embeddings": True, "dtype": "float16", **config}
    (folder / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    return folder


def gptq_base(folder: Path, bits: int, *, act_order: bool = False) -> Folder:
    """A layer of 160 × 64 in groups of 32."""
    generator = torch.Generator().manual_seed(bits)
    g_idx = torch.arange(64, dtype=torch.int32) // 32
    quantized = Quantized(
        q=torch.randint(0, 2**bits, (64, 160), generator=generator).to(torch.uint8).t(),
        scales=(torch.rand(160, 2, generator=generator) / 50 + 0.001).half(),
        zeros=torch.randint(1, 2**bits, (160, 2), generator=generator).to(torch.uint8),
        g_idx=g_idx[torch.randperm(64, generator=generator)] if act_order else g_idx,
        bits=bits,
    )
    stored = {f"{NAME}.{part}": tensor.contiguous() for part, tensor in pack(quantized).items()}
    config = {"quant_method": "gptq", "bits": bits, "group_size": 32, "checkpoint_format": "gptq"}
    return write(folder, stored, quantization_config=config), dequantize(quantized).half()


def awq_base(folder: Path) -> Folder:
    """A layer of 160 × 64 in groups of 32, packed value by value as the layout says."""
    chosen = random.Random(4)  # noqa: S311 (the same codes each time are the point)
    codes = [[chosen.randrange(16) for _ in range(160)] for _ in range(64)]
    zeros = [[chosen.randrange(16) for _ in range(160)] for _ in range(2)]
    scales = torch.tensor([[chosen.random() / 50 + 0.001 for _ in range(160)] for _ in range(2)]).half()

    def words(rows: list[list[int]]) -> torch.Tensor:
        order = (0, 2, 4, 6, 1, 3, 5, 7)
        packed = [
            [sum(row[at + output] << 4 * place for place, output in enumerate(order)) for at in range(0, len(row), 8)]
            for row in rows
        ]
        return torch.tensor(packed).to(torch.int32)

    stored = {f"{NAME}.qweight": words(codes), f"{NAME}.qzeros": words(zeros), f"{NAME}.scales": scales}
    values = [[(codes[c][r] - zeros[c // 32][r]) * scales[c // 32][r].float() for c in range(64)] for r in range(160)]
    config = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}
    return write(folder, stored, quantization_config=config), torch.tensor(values).half()


def nf4_base(folder: Path, *, nested: bool, dtype: str = "bfloat16", columns: int = 64) -> Folder:
    """A layer of 130 rows, written and read value by value."""
    chosen = random.Random(3)  # noqa: S311 (the same codes each time are the point)
    count = 130 * columns
    codes = [chosen.randrange(16) for _ in range(count)]
    packed = [codes[at] << 4 | codes[at + 1] for at in range(0, count, 2)]
    blocks = -(-count // 64)
    state: dict[str, Any] = {"quant_type": "nf4", "blocksize": 64, "dtype": dtype, "shape": [130, columns]}
    tensors = {
        f"{NAME}.weight": torch.tensor(packed, dtype=torch.uint8).view(-1, 1),
        f"{NAME}.weight.quant_map": torch.tensor(NF4),
    }
    if nested:
        inner = [chosen.randrange(256) for _ in range(blocks)]
        table = torch.linspace(-1, 1, 256)
        outer = torch.tensor([0.05 + 0.01 * at for at in range(-(-blocks // 256))])
        state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.0625}
        absmax = [table[inner[at]] * outer[at // 256] + 0.0625 for at in range(blocks)]
        tensors |= {
            f"{NAME}.weight.absmax": torch.tensor(inner, dtype=torch.uint8),
            f"{NAME}.weight.nested_absmax": outer,
            f"{NAME}.weight.nested_quant_map": table,
        }
    else:
        absmax = [torch.tensor(0.02 + chosen.random() / 10) for _ in range(blocks)]
        tensors[f"{NAME}.weight.absmax"] = torch.stack(absmax)
    text = list(json.dumps(state).encode())
    tensors[f"{NAME}.weight.quant_state.bitsandbytes__nf4"] = torch.tensor(text, dtype=torch.uint8)
    values = [torch.tensor(NF4[codes[at]]) * absmax[at // 64] for at in range(count)]
    config = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    folder = write(folder, tensors, quantization_config=config)
    return folder, torch.stack(values).view(130, columns).to(getattr(torch, dtype))


def adapter_for(folder: Path, weight: torch.Tensor) -> Path:
    folder.mkdir()
    torch.manual_seed(5)
    factors = {
        f"base_model.model.{NAME}.lora_A.weight": torch.randn(2, weight.shape[1]) / 50,
        f"base_model.model.{NAME}.lora_B.weight": torch.randn(weight.shape[0], 2) / 50,
    }
    save_file(factors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


MAKERS: Sequence[Any] = [
    *(pytest.param(lambda folder, bits=bits: gptq_base(folder, bits), id=f"gptq{bits}") for bits in (2, 3, 4, 8)),
    pytest.param(lambda folder: gptq_base(folder, 4, act_order=True), id="gptq4-act-order"),
    pytest.param(awq_base, id="awq"),
    pytest.param(lambda folder: nf4_base(folder, nested=False), id="nf4"),
    pytest.param(lambda folder: nf4_base(folder, nested=True), id="nf4-nested"),
    pytest.param(lambda folder: nf4_base(folder, nested=True, dtype="float16", columns=36), id="nf4-odd-blocks"),
]


@pytest.mark.parametrize("make", MAKERS)
def test_a_merge_into_a_quantized_base_is_the_merge_into_what_it_stands_for(
    make: Callable[[Path], Folder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lf_export.checkpoint.rows._BLOCK_ELEMENTS", 1 << 10)  # blocks of 64 rows
    base, weight = make(tmp_path / "base")
    plain = write(tmp_path / "plain", {f"{NAME}.weight": weight.contiguous()})
    adapter = adapter_for(tmp_path / "adapter", weight)
    options = MergeOptions(base, (adapter,), tmp_path / "ours", dequantize_base=True)
    made = merge_model(options)
    merge_model(MergeOptions(plain, (adapter,), tmp_path / "theirs"))
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "theirs"))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype
        assert torch.equal(ours[name], tensor), name
    config = json.loads((tmp_path / "ours" / "config.json").read_text(encoding="utf-8"))
    assert "quantization_config" not in config
    assert made["merge"]["changed"] == [f"{NAME}.weight"]
    assert verify_model(options)["tensors"] == 3
    size = (tmp_path / "ours" / "model.safetensors").stat().st_size
    written = estimate.merge(dequantized(open_checkpoint(base)), None).writes
    assert written is not None
    assert 0 < size - written < 1000  # the header


@pytest.mark.parametrize("make", MAKERS)
def test_without_an_adapter_a_packed_weight_is_unpacked(make: Callable[[Path], Folder], tmp_path: Path) -> None:
    from lf_export.checkpoint.merge import merge_checkpoint

    base, weight = make(tmp_path / "base")
    (tmp_path / "out").mkdir()
    facts = merge_checkpoint(dequantized(open_checkpoint(base)), [], tmp_path / "out")
    assert (facts.converted, facts.copied) == (1, 2)
    found = load_file(tmp_path / "out" / "model.safetensors")[f"{NAME}.weight"]
    assert found.dtype == weight.dtype
    assert torch.equal(found, weight)


def test_the_checkpoint_has_the_float_tensor_and_not_its_parts(tmp_path: Path) -> None:
    base, weight = nf4_base(tmp_path / "base", nested=True)
    checkpoint = dequantized(open_checkpoint(base))
    assert set(checkpoint.tensors) == {f"{NAME}.weight", "model.norm.weight", "model.embed_tokens.weight"}
    info = checkpoint.tensors[f"{NAME}.weight"]
    assert isinstance(info, PackedTensor)
    assert (info.shape, info.numel, info.dtype) == (tuple(weight.shape), weight.numel(), "BF16")


def test_a_quantized_base_is_refused_with_the_way_out(tmp_path: Path) -> None:
    base, weight = gptq_base(tmp_path / "base", 4)
    adapter = adapter_for(tmp_path / "adapter", weight)
    with pytest.raises(InputError, match="--dequantize-base adds to what they stand for"):
        merge_model(MergeOptions(base, (adapter,), tmp_path / "out"))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (None, "the base is not quantized"),
        ({"quant_method": "aqlm", "bits": 4}, "a base quantized with 'aqlm' cannot be dequantized"),
        ({"quant_method": "awq", "bits": 4, "version": "gemv"}, "AWQ with 4 bits in the layout 'gemv'"),
        ({"quant_method": "awq", "bits": 3}, "AWQ with 3 bits in the layout 'gemm'"),
        ({"quant_method": "gptq", "bits": 5}, "GPTQ with 5 bits"),
        ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "gptq_v2"}, "in the format 'gptq_v2'"),
        ({"quant_method": "gptq", "bits": 4}, "no weight of this base is packed"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes' 8 bit, NF4 was expected"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes' fp4, NF4 was expected"),
    ],
)
def test_what_cannot_be_dequantized_is_refused_by_name(tmp_path: Path, config: Any, says: str) -> None:
    extra = {} if config is None else {"quantization_config": config}
    with pytest.raises(InputError) as caught:
        dequantized(open_checkpoint(write(tmp_path / "base", {}, **extra)))
    assert says in caught.value.message


def test_a_damaged_quant_state_is_named(tmp_path: Path) -> None:
    base, _ = nf4_base(tmp_path / "base", nested=False)
    tensors = load_file(base / "model.safetensors")
    state = f"{NAME}.weight.quant_state.bitsandbytes__nf4"
    save_file(tensors | {state: torch.tensor([123, 1], dtype=torch.uint8)}, base / "model.safetensors")
    with pytest.raises(InputError, match="not bitsandbytes' quant state"):
        dequantized(open_checkpoint(base))
