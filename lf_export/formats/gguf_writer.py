"""Writes one GGUF file tensor by tensor, from the checkpoint straight to the final types.

The header, the metadata and the list of tensors come first, from shapes alone; then each tensor is read, converted
and appended in blocks of rows, so that memory holds a few blocks, whatever the size of the model.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lf_export.checkpoint.index import Checkpoint
from lf_export.checkpoint.reader import check_finite, read
from lf_export.errors import InputError
from lf_export.formats.gguf_arch import GgufTensor, add_metadata, gguf_library, model_shape
from lf_export.formats.gguf_imatrix import Imatrix
from lf_export.formats.gguf_tokenizer import GgufTokenizer
from lf_export.formats.gguf_types import GgufScheme, tensor_type
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
    """A GGUF in the making: its header is written at once, `write` appends tensors in order.

    The file is open only during a call, so a target that is abandoned leaves nothing open.

    Args:
        path: the file. One that is there is kept as a killed run left it, for `restore`.
        plan: the tensors in order.
        scheme: the file type.
        checkpoint: where the tensors are read.
        tokenizer: what goes into the metadata.
        identity: likewise.
        threads: how many blocks of rows are converted at a time; the bytes are the same for any number.
        imatrix: whether an importance matrix will be given: some schemes then take other types.
    """

    def __init__(
        self,
        path: Path,
        plan: Sequence[GgufTensor],
        scheme: GgufScheme,
        checkpoint: Checkpoint,
        tokenizer: GgufTokenizer,
        identity: GgufIdentity,
        threads: int = 1,
        *,
        imatrix: bool = False,
    ) -> None:
        self.path, self.scheme, self._threads = path, scheme, threads
        planned = planned_types(plan, scheme, checkpoint, imatrix=imatrix)
        self._pending = deque(planned)
        self.kinds = {tensor.name: kind for tensor, kind in planned}
        self.types = dict(sorted(Counter(kind.name for _, kind in planned).items()))
        if not path.exists():
            _write_header(path, planned, scheme, checkpoint, tokenizer, identity)

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
            imatrix: the importance of the input channels.
            through_layer: where to stop.
            ready: tensors that are quantized already, by name; they are written as they are.

        Raises:
            InputError: a tensor is not finite, or too large for F16.
            StepError: the importance matrix lacks a tensor.
        """
        with self.path.open("ab") as file, ThreadPoolExecutor(self._threads) as pool:
            while self._pending:
                tensor, kind = self._pending[0]
                if through_layer is not None and not _is_due(tensor, through_layer):
                    return
                file.write(bytes(-file.tell() % _ALIGNMENT))
                if ready and tensor.name in ready:
                    file.write(np.ascontiguousarray(ready[tensor.name]).data)
                else:
                    convert = partial(_convert, tensor, kind, _importance(tensor, kind, imatrix))
                    for data in _in_order(pool, convert, _row_blocks(tensor), self._threads):
                        file.write(data.data)
                file.write(bytes(-file.tell() % _ALIGNMENT))
                self._pending.popleft()


def _importance(tensor: GgufTensor, kind: GgmlType, imatrix: Imatrix | None) -> npt.NDArray[np.float32] | None:
    """The importance for a quantized tensor of a layer; embeddings and output have none, as in llama.cpp."""
    if imatrix is None or not kind.quantized or tensor.layer is None:
        return None
    return imatrix.importance(tensor.name)


def _is_due(tensor: GgufTensor, layer: int) -> bool:
    """Whether `tensor` precedes the end of `layer` in the file."""
    return tensor.name == "token_embd.weight" or (tensor.layer is not None and tensor.layer <= layer)


def planned_types(
    plan: Iterable[GgufTensor], scheme: GgufScheme, checkpoint: Checkpoint, *, imatrix: bool
) -> list[tuple[GgufTensor, GgmlType]]:
    """Each tensor of the plan with its type in a file of `scheme`."""
    shape = model_shape(checkpoint)
    return [(tensor, tensor_type(tensor.name, tensor.shape, scheme, shape, imatrix=imatrix)) for tensor in plan]


def tensor_nbytes(tensor: GgufTensor, kind: GgmlType) -> int:
    """Bytes of a tensor in the file, without padding."""
    return int(np.prod(tensor.shape[:-1], dtype=np.int64)) * kind.row_nbytes(tensor.shape[-1])


def _write_header(
    path: Path,
    tensors: Sequence[tuple[GgufTensor, GgmlType]],
    scheme: GgufScheme,
    checkpoint: Checkpoint,
    tokenizer: GgufTokenizer,
    identity: GgufIdentity,
) -> None:
    gguf = gguf_library()
    architecture = model_shape(checkpoint).architecture
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type("model")
    writer.add_name(identity.name)
    parameters = sum(int(np.prod(tensor.shape, dtype=np.int64)) for tensor, _ in tensors if tensor.source)
    writer.add_size_label(gguf.size_label(parameters, parameters, 0, 0))
    if identity.licence:
        writer.add_license(identity.licence)
    add_metadata(writer, checkpoint)
    writer.add_file_type(scheme.file_type)
    writer.add_quantization_version(_QUANTIZATION_VERSION)
    _add_tokenizer(writer, tokenizer)
    for tensor, kind in tensors:
        nbytes = tensor_nbytes(tensor, kind)
        writer.add_tensor_info(
            tensor.name, tensor.shape, np.dtype(np.float32), nbytes, raw_dtype=gguf.GGMLQuantizationType(kind.id)
        )
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


def _row_blocks(tensor: GgufTensor) -> list[slice]:
    """Blocks of whole heads where rows are permuted, else of rows; a vector is one block."""
    if len(tensor.shape) < 2:
        return [slice(0, tensor.shape[0])]
    rows, width = tensor.shape
    unit = tensor.unit or 1
    step = max(1, _BLOCK // (width * unit)) * unit
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def _convert(
    tensor: GgufTensor, kind: GgmlType, importance: npt.NDArray[np.float32] | None, rows: slice
) -> npt.NDArray[Any]:
    if tensor.source is None:
        assert tensor.values is not None  # noqa: S101 - a planned tensor has one or the other
        return tensor.values
    W = read(tensor.source, torch.float32, rows)
    check_finite(W, tensor.source.name, tensor.source.file)
    if tensor.unit:
        W = interleave(W, tensor.unit)
    if tensor.offset:
        W = W + tensor.offset
    if kind.quantized:
        return quantize(W.numpy(), kind, importance)
    if kind.name == "F32":
        return W.contiguous().numpy()
    if kind.name == "BF16":
        return W.to(torch.bfloat16).contiguous().view(torch.uint16).numpy()
    half = W.to(torch.float16)
    if not torch.isfinite(half).all():
        message = f"{tensor.source.file}: {tensor.source.name} has values beyond 65504, which F16 cannot hold"
        raise InputError(message, "take BF16, Q8_0 or a K-quant")
    return half.contiguous().numpy()


def interleave(W: torch.Tensor, head: int) -> torch.Tensor:
    """Reorder the rows of each head of `head` rows from [first half, second half] to neighbours that rotate together.

    Source: `permute` in llama.cpp's `convert_hf_to_gguf.py`. `W` is [heads · head, …].
    """
    return W.reshape(-1, 2, head // 2, *W.shape[1:]).transpose(1, 2).reshape(W.shape)


def _in_order(
    pool: ThreadPoolExecutor, convert: Callable[[slice], npt.NDArray[Any]], blocks: Sequence[slice], threads: int
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
