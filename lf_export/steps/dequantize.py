"""A quantized base as the float checkpoint that it stands for, unpacked tensor by tensor while it is merged.

GPTQ is unpacked by `quant.pack`, AWQ by `quant.pack_awq`.

NF4 is bitsandbytes' layout as its `QuantState` writes it: two codes a byte, the first in the high half; a code's value
in `quant_map`, times the `absmax` of its block of 64. `absmax` itself may be 8-bit codes: their value in
`nested_quant_map`, times the `nested_absmax` of their block, plus an offset. What stands beside the tensors is JSON in
a tensor of bytes, `quant_state.bitsandbytes__nf4` (https://huggingface.co/docs/bitsandbytes/reference/functional).
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from lf_export.checkpoint.header import TensorInfo
from lf_export.checkpoint.index import Checkpoint
from lf_export.checkpoint.packed import PackedTensor, RowReader
from lf_export.checkpoint.reader import DTYPE_NAMES, read
from lf_export.errors import InputError
from lf_export.quant import pack_awq
from lf_export.quant.grid import BITS
from lf_export.quant.pack import STORED, dequantize_stored, stored_bits

_AWQ_WORD = 8  # outputs in an int32
_STATE = ".quant_state.bitsandbytes__nf4"
_NF4_PARTS = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")


def dequantized(base: Checkpoint) -> Checkpoint:
    """The checkpoint with every packed weight as the float tensor that it stands for, in the base's dtype.

    Raises:
        InputError: the base is not quantized, or in a way that is not known here.
    """
    config = base.config.get("quantization_config")
    if not isinstance(config, dict):
        raise InputError(f"{base.root}: the base is not quantized", "merge without --dequantize-base")
    method = config.get("quant_method")
    known = _METHODS.get(str(method))
    if known is None:
        raise InputError(
            f"{base.root}: a base quantized with {method!r} cannot be dequantized, one of {', '.join(_METHODS)} can",
            "take the base that it was quantized from",
        )
    packed, used = known(base, config)
    if not packed:
        raise InputError(f"{base.root}: no weight of this base is packed as its quantization_config says")
    tensors: dict[str, TensorInfo] = {}
    by_main = {(info.file, info.start): info for info in packed}
    for name, info in base.tensors.items():
        if (info.file, info.start) in by_main:
            stands_for = by_main[info.file, info.start]
            tensors[stands_for.name] = stands_for
        elif name not in used:
            tensors[name] = info
    rest = {key: value for key, value in base.config.items() if key != "quantization_config"}
    return replace(base, tensors=tensors, config=rest)


def _gptq(base: Checkpoint, config: Mapping[str, Any]) -> tuple[list[PackedTensor], set[str]]:
    bits = config.get("bits")
    if bits not in BITS or config.get("checkpoint_format", "gptq") != "gptq":
        raise InputError(
            f"{base.root}: GPTQ with {bits!r} bits in the format {config.get('checkpoint_format', 'gptq')!r}, "
            f"{', '.join(map(str, BITS))} bits in the format 'gptq' were expected"
        )
    packed, used = [], set()
    for module, parts in _modules(base, STORED):
        used |= {info.name for info in parts.values()}
        words, columns = parts["qweight"].shape
        inputs = parts["g_idx"].shape[0]
        try:
            own = stored_bits(words, inputs)  # the config says what most have
        except ValueError as error:
            raise InputError(f"{parts['qweight'].file}: {parts['qweight'].name}: {error}") from error
        opened = partial(_open_gptq, parts, own)
        packed.append(_packed(base, f"{module}.weight", (columns, inputs), parts["qweight"], opened))
    return packed, used


def _modules(base: Checkpoint, stored: Sequence[str]) -> Iterator[tuple[str, dict[str, TensorInfo]]]:
    """The packed modules with the parts that a layout stores of each."""
    for name in base.tensors:
        if name.endswith(".qweight"):
            module = name.removesuffix(".qweight")
            yield module, {part: base.info(f"{module}.{part}") for part in stored}


def _open_gptq(parts: Mapping[str, TensorInfo], bits: int) -> RowReader:
    stored = {part: read(info) for part, info in parts.items()}

    def rows(first: int, stop: int) -> torch.Tensor:
        # outputs are the columns of what is stored; a multiple of 64 begins a word of packed zeros at any width
        words = slice(first * bits // 32, -(-stop * bits // 32))
        return dequantize_stored(
            {
                "qweight": stored["qweight"][:, first:stop],
                "qzeros": stored["qzeros"][:, words],
                "scales": stored["scales"][:, first:stop],
                "g_idx": stored["g_idx"],
            },
            bits,
        )

    return rows


def _awq(base: Checkpoint, config: Mapping[str, Any]) -> tuple[list[PackedTensor], set[str]]:
    version = str(config.get("version", "gemm")).lower()
    if config.get("bits") != pack_awq.BITS or version != "gemm":
        raise InputError(
            f"{base.root}: AWQ with {config.get('bits')!r} bits in the layout {version!r}, "
            f"{pack_awq.BITS} bits in the layout 'gemm' were expected"
        )
    packed, used = [], set()
    for module, parts in _modules(base, pack_awq.STORED):
        used |= {info.name for info in parts.values()}
        columns, words = parts["qweight"].shape
        shape = (words * _AWQ_WORD, columns)
        packed.append(_packed(base, f"{module}.weight", shape, parts["qweight"], partial(_open_awq, parts)))
    return packed, used


def _open_awq(parts: Mapping[str, TensorInfo]) -> RowReader:
    stored = {part: read(info) for part, info in parts.items()}

    def rows(first: int, stop: int) -> torch.Tensor:
        # outputs are the columns of what is stored, eight to a word; blocks begin at multiples of 64
        words = slice(first // _AWQ_WORD, -(-stop // _AWQ_WORD))
        return pack_awq.dequantize_awq(
            {
                "qweight": stored["qweight"][:, words],
                "qzeros": stored["qzeros"][:, words],
                "scales": stored["scales"][:, first:stop],
            }
        )

    return rows


def _nf4(base: Checkpoint, config: Mapping[str, Any]) -> tuple[list[PackedTensor], set[str]]:
    kind = config.get("bnb_4bit_quant_type", "fp4")
    if not config.get("load_in_4bit") or kind != "nf4":
        raise InputError(
            f"{base.root}: bitsandbytes' {kind if config.get('load_in_4bit') else '8 bit'}, NF4 was expected"
        )
    packed, used = [], set()
    for name in [name for name in base.tensors if name.endswith(_STATE)]:
        weight = name.removesuffix(_STATE)
        main = base.info(weight)
        state = _state(base.info(name))
        parts = {part: base.tensors[f"{weight}.{part}"] for part in _NF4_PARTS if f"{weight}.{part}" in base.tensors}
        used |= {name, weight} | {info.name for info in parts.values()}
        shape = tuple(state["shape"])
        packed.append(
            _packed(base, weight, shape, main, partial(_open_nf4, main, parts, state, shape), str(state.get("dtype")))
        )
    return packed, used


def _state(info: TensorInfo) -> dict[str, Any]:
    try:
        state = json.loads(bytes(read(info).tolist()))
        known = state["quant_type"] == "nf4" and len(state["shape"]) == 2 and state["blocksize"] > 0
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{info.file}: {info.name}: not bitsandbytes' quant state: {error}") from error
    if not known:
        raise InputError(f"{info.file}: {info.name}: a matrix in NF4 was expected")
    return dict(state)


def _open_nf4(
    main: TensorInfo, parts: Mapping[str, TensorInfo], state: Mapping[str, Any], shape: tuple[int, ...]
) -> RowReader:
    codes = read(main).view(-1)
    values = read(parts["quant_map"], torch.float32)
    if codes.numel() * 2 < shape[0] * shape[1] or len(values) != 16:
        raise InputError(f"{main.file}: {main.name}: {codes.numel():,} bytes for {list(shape)} in NF4")
    absmax = _absmax(parts, state)

    def rows(first: int, stop: int) -> torch.Tensor:
        low, high = first * shape[1], stop * shape[1]
        pairs = codes[low // 2 : -(-high // 2)]
        both = torch.stack((pairs >> 4, pairs & 15), dim=1).view(-1)[low % 2 : low % 2 + high - low]
        blocks = torch.arange(low, high) // int(state["blocksize"])
        return (values[both.int()] * absmax[blocks]).view(stop - first, shape[1])

    return rows


def _absmax(parts: Mapping[str, TensorInfo], state: Mapping[str, Any]) -> torch.Tensor:
    absmax = read(parts["absmax"])
    if "nested_absmax" not in parts:
        return absmax.float()
    outer = read(parts["nested_absmax"], torch.float32)
    blocks = torch.arange(absmax.numel()) // int(state["nested_blocksize"])
    codes = read(parts["nested_quant_map"], torch.float32)
    return codes[absmax.int()] * outer[blocks] + float(state.get("nested_offset", 0.0))


def _packed(
    base: Checkpoint,
    name: str,
    shape: tuple[int, ...],
    main: TensorInfo,
    unpack: Callable[[], RowReader],
    dtype: str | None = None,
) -> PackedTensor:
    """The weight in the base's own dtype, or in the one that is stored with it."""
    said = dtype or base.config.get("dtype") or base.config.get("torch_dtype") or "float16"
    torch_dtype = getattr(torch, str(said).removeprefix("torch."), None)
    if torch_dtype not in {torch.float32, torch.float16, torch.bfloat16}:
        raise InputError(f"{base.root}: {name}: dtype {said!r} is not one of float32, float16, bfloat16")
    return PackedTensor(name, DTYPE_NAMES[torch_dtype], shape, main.file, main.start, main.nbytes, unpack=unpack)


_METHODS: dict[str, Callable[[Checkpoint, Mapping[str, Any]], tuple[list[PackedTensor], set[str]]]] = {
    "gptq": _gptq,
    "awq": _awq,
    "bitsandbytes": _nf4,
}
