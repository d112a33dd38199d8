"""Merge LoRA adapters into a checkpoint as a stream: blocks of rows, in memory that does not grow with the model.

    W' = round_once(W + scaling * B @ A)      per adapter, in order

The product and the sum are float32 (float64 for a float64 base) and the result is rounded once to the weight's dtype.
That is bit for bit what PEFT's `merge_and_unload` gives for a base loaded in its own dtype, and, for several adapters,
what merging them one after the other gives: each sum is rounded. When another dtype is asked for, the sum is kept in
the wider of the two dtypes and rounded to the asked one at the end, as if PEFT had merged in the wider one and cast.
Tensors that nothing touches are copied by the kernel, neighbours in one call.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import torch

from lf_export.checkpoint.adapter import Adapter
from lf_export.checkpoint.carry import Carried, copy_companions, copy_licences, has_tokenizer, replace_tokenizer
from lf_export.checkpoint.edits import Edit, plan_edits
from lf_export.checkpoint.facts import MergeFacts, adapter_facts
from lf_export.checkpoint.header import FLOAT_DTYPES
from lf_export.checkpoint.index import INDEX_NAME, Checkpoint
from lf_export.checkpoint.lora_config import Combine
from lf_export.checkpoint.packed import PackedTensor
from lf_export.checkpoint.proof import Proof
from lf_export.checkpoint.reader import DTYPE_NAMES, TORCH_DTYPES
from lf_export.checkpoint.rows import Rows
from lf_export.checkpoint.staging import disk_errors
from lf_export.checkpoint.writer import CopyRange, Entry, SafetensorsFile
from lf_export.errors import InputError
from lf_export.progress import stage

DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
"""The dtypes that a merge can write, by the name in a model's config."""


def merge_checkpoint(
    base: Checkpoint,
    adapters: Sequence[Adapter],
    out: Path,
    dtype: str | None = None,
    weights: Sequence[float] | None = None,
    combine: Combine = "in-order",
) -> MergeFacts:
    """Write `base` with `adapters` merged in, as a complete model folder into the existing folder `out`.

    Weights go into files of the same names as the base's; config, tokenizer, chat template and licences go along.

    Args:
        base: the checkpoint; its weights are read block by block.
        adapters: LoRA adapters, merged one after the other or combined first.
        out: an existing folder, as a rule one of `writer.staging`.
        dtype: "float32", "float16" or "bfloat16" for all float tensors; None keeps each tensor's own.
        weights: what each adapter counts; 1 where it is not given.
        combine: "in-order" adds each after the other; "linear" and "cat" combine them first (see `changes.Lora`).

    Raises:
        InputError: an adapter does not fit, a weight is NaN or infinite, or a result overflows its dtype.
        StepError: the disk is full, or a result is further from the formula than rounding explains.
    """
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    counted = [1.0] * len(adapters) if weights is None else list(weights)
    plan = _Plan(base, plan_edits(base, adapters, counted, combine), DTYPES[dtype] if dtype else None)
    proof = Proof()
    written = 0
    with stage("merge", plan.read_bytes, "B") as advance:
        for shard in base.shards:
            target = out / base.relative(shard)
            target.parent.mkdir(parents=True, exist_ok=True)
            jobs = plan.jobs(shard)
            metadata = base.metadata.get(shard) or {"format": "pt"}
            with (
                disk_errors(target),
                closing(SafetensorsFile(target, plan.layout(shard), metadata)) as file,
                _workers() as workers,  # ends before the file is closed, also after an error
            ):
                for job, found in zip(jobs, workers.map(partial(plan.run, file), jobs), strict=True):
                    proof.take(found)
                    advance(job.read_bytes, job.name)
                written += file.size
    if base.index is not None:
        _write_index(base, out, plan)
    corrected = plan.corrections() | ({} if dtype is None else {"dtype": dtype})
    carried = copy_companions(base.root, out, partial(_corrected, corrected=corrected) if corrected else None)
    tokenizer = _take_tokenizer(adapters, out) if "vocab_size" in corrected else None
    licences = _adapter_licences(adapters, out)
    changed = [name for name, edit in plan.edits.items() if edit.changed]
    return MergeFacts(
        files=tuple(base.relative(shard) for shard in base.shards),
        bytes_written=written,
        changed=tuple(sorted(changed)),
        added=tuple(sorted(plan.edits.keys() - base.tensors.keys())),
        copied=len(base.tensors) - len(base.tensors.keys() & set(changed)) - plan.converted,
        converted=plan.converted,
        config={key: value for key, value in corrected.items() if key != "dtype"},
        tokenizer=tokenizer,
        dtype=dtype,
        combine=combine,
        adapters=tuple(adapter_facts(*each) for each in zip(adapters, counted, strict=True)),
        carried=Carried(carried.copied + licences, carried.code),
        max_deviation=proof.deviation,
        max_deviation_bound=proof.bound,
        max_deviation_in=proof.tensor,
    )


@contextmanager
def _workers() -> Iterator[ThreadPoolExecutor]:
    """As many threads as torch may use, each of which computes alone.

    Tensors side by side instead of one product on all cores: blocks are too small to be worth a meeting of threads, and
    while one thread waits for the disk the other one computes.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(threads, "merge")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)  # after an error no further tensor is begun
        torch.set_num_threads(threads)


@dataclass(frozen=True, slots=True)
class _Job:
    """A piece of a file: one tensor that changes, or a range of neighbours that do not; `at` is its place there."""

    at: int
    name: str
    read_bytes: int
    copy: CopyRange | None = None
    edit: Edit | None = None


class _Plan:
    """Which tensors change, which are cast, which are copied, and into which file each goes."""

    def __init__(self, base: Checkpoint, edits: Mapping[str, Edit], dtype: torch.dtype | None) -> None:
        self.base = base
        self.edits = edits
        self.dtype = dtype
        self.shards: dict[Path, list[Edit]] = {shard: [] for shard in base.shards}
        for info in sorted(base.tensors.values(), key=lambda info: (info.start, info.nbytes)):
            self.shards[info.file].append(edits[info.name])
        for name in sorted(edits.keys() - base.tensors.keys()):  # an output layer that is no longer tied
            self.shards[base.shards[-1]].append(edits[name])
        self.converted = sum(not edits[name].changed and self.computed(edits[name]) for name in base.tensors)
        self._idle: SimpleQueue[Rows] = SimpleQueue()

    @property
    def read_bytes(self) -> int:
        """The bytes of all sources."""
        return sum(edit.source.nbytes for edit in self.edits.values())

    def dtype_of(self, edit: Edit) -> str:
        """The dtype in which a tensor is written, as in a header."""
        if self.dtype is None or edit.dtype not in FLOAT_DTYPES:
            return edit.dtype
        return DTYPE_NAMES[self.dtype]

    def computed(self, edit: Edit) -> bool:
        """Whether a tensor goes through memory; the others are copied as they are."""
        packed = isinstance(edit.source, PackedTensor)
        return edit.changed or packed or self.dtype_of(edit) != edit.source.dtype

    def nbytes(self, edit: Edit) -> int:
        """The bytes that a tensor has when it is written."""
        return math.prod(edit.source.shape) * TORCH_DTYPES[self.dtype_of(edit)].itemsize

    def layout(self, shard: Path) -> list[Entry]:
        """The tensors of the file that is written for `shard`, in the order of the base's data."""
        return [(edit.name, self.dtype_of(edit), edit.source.shape) for edit in self.shards[shard]]

    def jobs(self, shard: Path) -> list[_Job]:
        """The pieces of the file that is written for `shard`, in order and without a gap."""
        jobs: list[_Job] = []
        position = 0
        for edit in self.shards[shard]:
            info = edit.source
            if self.computed(edit):
                jobs.append(_Job(position, edit.name, info.nbytes, None, edit))
                position += self.nbytes(edit)
                continue
            last = jobs[-1].copy if jobs else None
            if last is not None and (last.file, last.start + last.nbytes) == (info.file, info.start):
                grown = CopyRange(last.file, last.start, last.nbytes + info.nbytes)
                jobs[-1] = replace(jobs[-1], copy=grown, read_bytes=grown.nbytes)
            else:
                jobs.append(_Job(position, edit.name, info.nbytes, CopyRange(info.file, info.start, info.nbytes)))
            position += info.nbytes
        return jobs

    def corrections(self) -> dict[str, Any]:
        """What the base's config must say otherwise: whether weights are tied, and how many tokens there are."""
        corrected: dict[str, Any] = {}
        if any(isinstance(info, PackedTensor) for info in self.base.tensors.values()):
            corrected["quantization_config"] = None
        if self.edits.keys() - self.base.tensors.keys():
            corrected["tie_word_embeddings"] = False
        embedding = self.base.embedding
        if embedding is not None:
            rows = self.edits[embedding].source.shape[0]
            if rows != self.base.tensors[embedding].shape[0]:
                corrected["vocab_size"] = rows
        return corrected

    def run(self, file: SafetensorsFile, job: _Job) -> Proof:
        """Write one piece; what it proves about the formula."""
        proof = Proof()
        position = job.at
        if job.copy is not None:
            position += file.put(position, job.copy)
        if job.edit is not None:
            rows = self._take_rows()
            for part in rows.of(job.edit, TORCH_DTYPES[self.dtype_of(job.edit)], proof):
                position += file.put(position, part)
            self._idle.put(rows)
        file.start_writeback(job.at, position - job.at)
        return proof

    def _take_rows(self) -> Rows:
        try:
            return self._idle.get_nowait()
        except Empty:
            return Rows()


def _write_index(base: Checkpoint, out: Path, plan: _Plan) -> None:
    index = dict(base.index or {})
    total = sum(plan.nbytes(edit) for edit in plan.edits.values())
    index["metadata"] = {**(index.get("metadata") or {}), "total_size": total}
    index["weight_map"] = {name: base.relative(info.file) for name, info in base.tensors.items()}
    last = base.relative(base.shards[-1])
    index["weight_map"] |= dict.fromkeys(sorted(plan.edits.keys() - base.tensors.keys()), last)
    (out / INDEX_NAME).write_text(json.dumps(index, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _corrected(config: Mapping[str, Any], corrected: Mapping[str, Any]) -> dict[str, Any]:
    """The config with some values corrected, also in the part about the text model where that has the key.

    The dtype goes under the key that the config uses (`torch_dtype` before Transformers 5). None removes a key.
    """
    changed = {key: value for key, value in config.items() if corrected.get(key, ...) is not None}
    for key, value in corrected.items():
        if value is None:
            continue
        old = key == "dtype" and "torch_dtype" in config and "dtype" not in config
        changed["torch_dtype" if old else key] = value
    inner = changed.get("text_config")
    if isinstance(inner, dict):
        changed["text_config"] = {
            key: corrected[key] if key != "dtype" and key in corrected else value for key, value in inner.items()
        }
    return changed


def _take_tokenizer(adapters: Sequence[Adapter], out: Path) -> str | None:
    """Carry the tokenizer of the last adapter that has one: the vocabulary was resized; gives the adapter's name."""
    for adapter in reversed(adapters):
        if has_tokenizer(adapter.root):
            replace_tokenizer(adapter.root, out)
            return adapter.root.resolve().name
    return None


def _adapter_licences(adapters: Sequence[Adapter], out: Path) -> tuple[str, ...]:
    names: list[str] = []
    for number, adapter in enumerate(adapters, 1):
        label = "adapter" if len(adapters) == 1 else f"adapter{number}"
        names += copy_licences(adapter.root, out, label)
    return tuple(names)
