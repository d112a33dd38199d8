"""Writes one GGUF file tensor by tensor, from the checkpoint straight to the final types.

The header, the metadata and the list of tensors come first, from shapes alone; then each tensor is read, converted
and appended in blocks of rows, so that memory holds a few blocks, whatever the size of the model.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch

from lf_export.checkpoint.gguf_parts import MOST_PARTS, part_name
from lf_export.checkpoint.index import Checkpoint
from lf_export.checkpoint.reader import check_finite, read
from lf_export.errors import InputError
from lf_export.formats.gguf_arch import GgufTensor, add_metadata, gguf_library, model_shape
from lf_export.formats.gguf_imatrix import Imatrix
from lf_export.formats.gguf_plan import Planned
from lf_export.formats.gguf_tokenizer import GgufTokenizer
from lf_export.formats.gguf_types import GgufScheme
from lf_export.quant.ggml import GgmlType, quantize

_ALIGNMENT = 32
# Elements that are converted at once: 4 MiB of fp32, which stays in a core's cache with its result.
_BLOCK = 1 << 20
_QUANTIZATION_VERSION = 2  # GGML_QNT_VERSION


@dataclass(frozen=True)
class GgufIdentity:
    """What a file says about itself: the model's name and its licence (SPDX, empty where unknown)."""

    name: str
    licence: str = ""


class GgufFile:
    """A GGUF in the making: its headers are written at once, `write` appends tensors in order.

    Parts are open only during a call, so a target that is abandoned leaves nothing open.

    Args:
        path: the file; with several parts, what each is named after. Those that are there are kept as a killed run left
            them, for `restore`.
        planned: the tensors in order.
        scheme: the file type.
        checkpoint: where the tensors are read.
        tokenizer: what goes into the metadata.
        identity: likewise.
        threads: how many blocks of rows are converted at a time; the bytes are the same for any number.
        part_bytes: the most bytes of tensors in a part (a tensor that is larger has one of its own); None: one file.
    """

    def __init__(
        self,
        path: Path,
        planned: Sequence[Planned],
        scheme: GgufScheme,
        checkpoint: Checkpoint,
        tokenizer: GgufTokenizer,
        identity: GgufIdentity,
        threads: int = 1,
        *,
        part_bytes: int | None = None,
    ) -> None:
        self.scheme, self._threads = scheme, threads
        self.planned = {each.tensor.name: each for each in planned}
        self.types = dict(sorted(Counter(each.kind.name for each in planned).items()))
        parts = split_parts(planned, part_bytes)
        self.paths = [path]
        if len(parts) > 1:
            self.paths = [
                path.with_name(part_name(path.stem, number, len(parts))) for number in range(1, len(parts) + 1)
            ]
        self._pending = deque((file, each) for file, part in zip(self.paths, parts, strict=True) for each in part)
        for number, (file, part) in enumerate(zip(self.paths, parts, strict=True)):
            if not file.exists():
                _write_header(file, _Part(number, parts), part, scheme, checkpoint, tokenizer, identity)

    @property
    def path(self) -> Path:
        """The file that a runtime is given: the first part."""
        return self.paths[0]

    @property
    def calibrated(self) -> bool:
        """Whether any tensor takes the importance of its input channels."""
        return any(each.calibrated for each in self.planned.values())

    def snapshot(self) -> int:
        """How many tensors are still to be written."""
        return len(self._pending)

    def restore(self, pending: int) -> None:
        """Leave so many tensors to write: the file ends with the one before them."""
        while len(self._pending) > pending:
            self._pending.popleft()

    def write(
        self,
        imatrix: Imatrix | None = None,
        *,
        through_layer: int | None = None,
        ready: Mapping[str, npt.NDArray[np.uint8]] | None = None,
    ) -> None:
        """Write the pending tensors in order, up to the last of `through_layer`, or all.

        Args:
            imatrix: the importance of the input channels, for tensors whose method takes it.
            through_layer: where to stop.
            ready: tensors that are quantized already, by name; they are written as they are.

        Raises:
            InputError: a tensor is not finite, or too large for F16.
            StepError: the importance matrix lacks a tensor.
        """
        with ThreadPoolExecutor(self._threads) as pool:
            while self._pending and _is_due(self._pending[0][1].tensor, through_layer):
                path = self._pending[0][0]
                with path.open("ab") as file:
                    while self._pending and self._pending[0][0] == path:
                        planned = self._pending[0][1]
                        if not _is_due(planned.tensor, through_layer):
                            return
                        self._append(file, planned, imatrix, ready or {}, pool)
                        self._pending.popleft()

    def _append(
        self,
        file: BinaryIO,
        planned: Planned,
        imatrix: Imatrix | None,
        ready: Mapping[str, npt.NDArray[np.uint8]],
        pool: ThreadPoolExecutor,
    ) -> None:
        tensor = planned.tensor
        file.write(bytes(-file.tell() % _ALIGNMENT))
        if tensor.name in ready:
            file.write(np.ascontiguousarray(ready[tensor.name]).data)
        else:
            weigh = partial(imatrix.importance, tensor.name) if imatrix is not None and planned.calibrated else None
            convert = partial(_convert, tensor, planned.kind, weigh)
            file.writelines(data.data for data in _in_order(pool, convert, _row_blocks(tensor), self._threads))
        file.write(bytes(-file.tell() % _ALIGNMENT))


def _is_due(tensor: GgufTensor, layer: int | None) -> bool:
    """Whether `tensor` precedes the end of `layer` in the file; None: the end of the file."""
    if layer is None or tensor.name == "token_embd.weight":
        return True
    return tensor.layer is not None and tensor.layer <= layer


def split_parts(planned: Sequence[Planned], most: int | None) -> list[list[Planned]]:
    """The tensors of each part, in order: a part ends where the next tensor would take it beyond `most` bytes.

    Source: `split_strategy` in llama.cpp's `tools/gguf-split`; metadata does not count.

    Raises:
        InputError: more parts than a file can have.
    """
    parts: list[list[Planned]] = [[]]
    size = 0
    for each in planned:
        padded = each.nbytes + -each.nbytes % _ALIGNMENT
        if most is not None and parts[-1] and size + padded > most:
            parts.append([])
            size = 0
        parts[-1].append(each)
        size += padded
    if len(parts) > MOST_PARTS:
        raise InputError(f"split_max_size: {len(parts)} parts, expected {MOST_PARTS} at the most", "take a larger size")
    return parts


@dataclass(frozen=True)
class _Part:
    """Which part a header is for, from 0, and all parts."""

    number: int
    parts: Sequence[Sequence[Planned]]

    def describe(self, writer: Any) -> None:
        """Write the keys by which llama.cpp puts parts together; nothing where there is one."""
        if len(self.parts) > 1:
            keys = gguf_library().Keys.Split
            writer.add_uint16(keys.LLM_KV_SPLIT_NO, self.number)
            writer.add_uint16(keys.LLM_KV_SPLIT_COUNT, len(self.parts))
            writer.add_int32(keys.LLM_KV_SPLIT_TENSORS_COUNT, sum(map(len, self.parts)))


def _write_header(
    path: Path,
    part: _Part,
    tensors: Sequence[Planned],
    scheme: GgufScheme,
    checkpoint: Checkpoint,
    tokenizer: GgufTokenizer,
    identity: GgufIdentity,
) -> None:
    gguf = gguf_library()
    # parts after the first have no metadata of the model
    writer = gguf.GGUFWriter(path, model_shape(checkpoint).architecture if part.number == 0 else "")
    if part.number == 0:
        writer.add_type("model")
        writer.add_name(identity.name)
        stored = [each.tensor for shard in part.parts for each in shard if each.tensor.sources]
        parameters = sum(info.numel for tensor in stored for info in tensor.sources)
        of_one = sum(tensor.experts[0].numel for tensor in stored if tensor.experts)
        experts = max(len(tensor.experts) for tensor in stored)
        writer.add_size_label(gguf.size_label(parameters, parameters - experts * of_one, of_one, experts))
        if identity.licence:
            writer.add_license(identity.licence)
        add_metadata(writer, checkpoint)
        writer.add_file_type(scheme.file_type)
        writer.add_quantization_version(_QUANTIZATION_VERSION)
        _add_tokenizer(writer, tokenizer)
    part.describe(writer)
    for each in tensors:
        raw = gguf.GGMLQuantizationType(each.kind.id)
        tensor = each.tensor
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), each.nbytes, raw_dtype=raw)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()


def _add_tokenizer(writer: Any, tokenizer: GgufTokenizer) -> None:
    writer.add_tokenizer_model(tokenizer.model)
    writer.add_tokenizer_pre(tokenizer.pre)
    writer.add_token_list(tokenizer.tokens)
    writer.add_token_types(tokenizer.types)
    if tokenizer.model == "llama":
        writer.add_token_scores(tokenizer.scores)
        writer.add_add_space_prefix(tokenizer.space_prefix)
    else:
        writer.add_token_merges(tokenizer.merges)
    add = {
        "bos": writer.add_bos_token_id,
        "eos": writer.add_eos_token_id,
        "eot": writer.add_eot_token_id,
        "unknown": writer.add_unk_token_id,
        "padding": writer.add_pad_token_id,
    }
    for name, index in tokenizer.special.items():
        add[name](index)
    writer.add_add_bos_token(tokenizer.add_bos)
    writer.add_add_eos_token(tokenizer.add_eos)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


@dataclass(frozen=True)
class _Block:
    """Rows of one of the matrices of a tensor: the first, or that of an expert."""

    matrix: int
    rows: slice


def _row_blocks(tensor: GgufTensor) -> list[_Block]:
    """Blocks of whole heads where rows are permuted, else of rows, expert by expert; a vector is one block."""
    if len(tensor.shape) < 2:
        return [_Block(0, slice(0, tensor.shape[0]))]
    rows, width = tensor.shape[-2:]
    unit = tensor.unit or 1
    step = max(1, _BLOCK // (width * unit)) * unit
    starts = range(0, rows, step)
    matrices = range(max(1, len(tensor.experts)))
    return [_Block(matrix, slice(start, min(start + step, rows))) for matrix in matrices for start in starts]


def _convert(
    tensor: GgufTensor, kind: GgmlType, weigh: Callable[[int], npt.NDArray[np.float32]] | None, block: _Block
) -> npt.NDArray[Any]:
    if not tensor.sources:
        assert tensor.values is not None  # noqa: S101 - a planned tensor has one or the other
        return tensor.values
    source = tensor.sources[block.matrix]
    W = read(source, torch.float32, block.rows)
    check_finite(W, source.name, source.file)
    if tensor.unit:
        W = interleave(W, tensor.unit)
    if tensor.offset:
        W = W + tensor.offset
    if kind.quantized:
        return quantize(W.numpy(), kind, None if weigh is None else weigh(block.matrix))
    if kind.name == "F32":
        return W.contiguous().numpy()
    if kind.name == "BF16":
        return W.to(torch.bfloat16).contiguous().view(torch.uint16).numpy()
    half = W.to(torch.float16)
    if not torch.isfinite(half).all():
        message = f"{source.file}: {source.name} has values beyond 65504, which F16 cannot hold"
        raise InputError(message, "take BF16, Q8_0 or a K-quant")
    return half.contiguous().numpy()


def tensor_data(planned: Planned) -> Iterator[npt.NDArray[Any]]:
    """The data of a tensor that no calibration touches, block by block, as it is written.

    Raises:
        InputError: it is not finite, or too large for F16.
    """
    for block in _row_blocks(planned.tensor):
        yield _convert(planned.tensor, planned.kind, None, block)


def interleave(W: torch.Tensor, head: int) -> torch.Tensor:
    """Reorder the rows of each head of `head` rows from [first half, second half] to neighbours that rotate together.

    Source: `permute` in llama.cpp's `convert_hf_to_gguf.py`. `W` is [heads · head, …].
    """
    return W.reshape(-1, 2, head // 2, *W.shape[1:]).transpose(1, 2).reshape(W.shape)


def _in_order(
    pool: ThreadPoolExecutor, convert: Callable[[_Block], npt.NDArray[Any]], blocks: Sequence[_Block], threads: int
) -> Iterator[npt.NDArray[Any]]:
    """Convert blocks in the pool and give them in order, at most one more than threads in memory."""
    if threads == 1:
        yield from map(convert, blocks)
        return
    running: deque[Future[npt.NDArray[Any]]] = deque()
    for block in blocks:
        if len(running) > threads:
            yield running.popleft().result()
        running.append(pool.submit(convert, block))
    while running:
        yield running.popleft().result()
