"""Merge LoRA adapters into a checkpoint as a stream: blocks of rows, in memory that does not grow with the model.

    W' = round_once(W + scaling * B @ A)      per adapter, in order

The product and the sum are float32 (float64 for a float64 base) and the result is rounded once to the weight's dtype.
That is bit for bit what PEFT's `merge_and_unload` gives for a base loaded in its own dtype, and, for several adapters,
what merging them one after the other gives: each sum is rounded. When another dtype is asked for, the sum is kept in
the wider of the two dtypes and rounded to the asked one at the end, as if PEFT had merged in the wider one and cast.
Tensors that nothing touches are copied by the kernel, neighbours in one call.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import torch

from lf_export.checkpoint.adapter import Adapter, LoraModule
from lf_export.checkpoint.carry import Carried, copy_companions, copy_licences
from lf_export.checkpoint.fit import check_fits
from lf_export.checkpoint.header import FLOAT_DTYPES, TensorInfo
from lf_export.checkpoint.index import INDEX_NAME, Checkpoint
from lf_export.checkpoint.reader import DTYPE_NAMES, TORCH_DTYPES
from lf_export.checkpoint.rows import Proof, Rows
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


@dataclass(frozen=True)
class MergeFacts:
    """What a merge did, for the manifest.

    `max_deviation` is a |W' - formula in float64| over sampled rows of every changed tensor: the one that comes closest
    to what rounding alone may cost there, `max_deviation_bound`; it was found in `max_deviation_in`.
    """

    files: tuple[str, ...]
    bytes_written: int
    changed: tuple[str, ...]
    copied: int
    converted: int
    dtype: str | None
    adapters: tuple[dict[str, Any], ...]
    carried: Carried
    max_deviation: float
    max_deviation_bound: float
    max_deviation_in: str

    def as_dict(self) -> dict[str, Any]:
        """The facts as JSON values."""
        return {
            "files": list(self.files),
            "bytes_written": self.bytes_written,
            "changed": list(self.changed),
            "copied": self.copied,
            "converted": self.converted,
            "dtype": self.dtype,
            "adapters": [dict(adapter) for adapter in self.adapters],
            "carried": list(self.carried.copied),
            "code_left_behind": list(self.carried.code),
            "proof": {
                "max_deviation": self.max_deviation,
                "bound": self.max_deviation_bound,
                "tensor": self.max_deviation_in,
            },
        }


def merge_checkpoint(base: Checkpoint, adapters: Sequence[Adapter], out: Path, dtype: str | None = None) -> MergeFacts:
    """Write `base` with `adapters` merged in, in order, as a complete model folder into the existing folder `out`.

    Weights go into files of the same names as the base's; config, tokenizer, chat template and licences go along.

    Args:
        base: the checkpoint; its weights are read block by block.
        adapters: LoRA adapters, merged one after the other.
        out: an existing folder, as a rule one of `writer.staging`.
        dtype: "float32", "float16" or "bfloat16" for all float tensors; None keeps each tensor's own.

    Raises:
        InputError: an adapter does not fit, a weight is NaN or infinite, or a result overflows its dtype.
        StepError: the disk is full, or a result is further from the formula than rounding explains.
    """
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    for adapter in adapters:
        check_fits(adapter, base)
    plan = _Plan(base, adapters, DTYPES[dtype] if dtype else None)
    proof = Proof()
    written = 0
    with stage("merge", base.nbytes, "B") as advance:
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
    carried = copy_companions(base.root, out, None if dtype is None else lambda config: _with_dtype(config, dtype))
    licences = _adapter_licences(adapters, out)
    return MergeFacts(
        files=tuple(base.relative(shard) for shard in base.shards),
        bytes_written=written,
        changed=tuple(sorted(plan.changes)),
        copied=len(base.tensors) - len(plan.changes) - plan.converted,
        converted=plan.converted,
        dtype=dtype,
        adapters=tuple(_adapter_facts(adapter) for adapter in adapters),
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
    info: TensorInfo | None = None
    modules: tuple[LoraModule, ...] = ()


class _Plan:
    """Which tensors change, which are cast, which are copied."""

    def __init__(self, base: Checkpoint, adapters: Sequence[Adapter], dtype: torch.dtype | None) -> None:
        self.dtype = dtype
        self.shards: dict[Path, list[TensorInfo]] = {shard: [] for shard in base.shards}
        for info in sorted(base.tensors.values(), key=lambda info: (info.start, info.nbytes)):
            self.shards[info.file].append(info)
        self.changes: dict[str, list[LoraModule]] = {}
        for adapter in adapters:
            for module in adapter.modules.values():
                self.changes.setdefault(module.weight, []).append(module)
        self.converted = sum(
            name not in self.changes and self.dtype_of(info) != info.dtype for name, info in base.tensors.items()
        )
        self._idle: SimpleQueue[Rows] = SimpleQueue()

    def dtype_of(self, info: TensorInfo) -> str:
        """The dtype in which a tensor is written, as in a header."""
        if self.dtype is None or info.dtype not in FLOAT_DTYPES:
            return info.dtype
        return DTYPE_NAMES[self.dtype]

    def layout(self, shard: Path) -> list[Entry]:
        """The tensors of the file that is written for `shard`, in the order of the base's data."""
        return [(info.name, self.dtype_of(info), info.shape) for info in self.shards[shard]]

    def jobs(self, shard: Path) -> list[_Job]:
        """The pieces of the file that is written for `shard`, in order and without a gap."""
        jobs: list[_Job] = []
        position = 0
        for info in self.shards[shard]:
            modules = tuple(self.changes.get(info.name, ()))
            if modules or self.dtype_of(info) != info.dtype:
                jobs.append(_Job(position, info.name, info.nbytes, None, info, modules))
                position += info.numel * TORCH_DTYPES[self.dtype_of(info)].itemsize
                continue
            last = jobs[-1].copy if jobs else None
            if last is not None and last.start + last.nbytes == info.start:
                grown = CopyRange(last.file, last.start, last.nbytes + info.nbytes)
                jobs[-1] = replace(jobs[-1], copy=grown, read_bytes=grown.nbytes)
            else:
                jobs.append(_Job(position, info.name, info.nbytes, CopyRange(info.file, info.start, info.nbytes)))
            position += info.nbytes
        return jobs

    def run(self, file: SafetensorsFile, job: _Job) -> Proof:
        """Write one piece; what it proves about the formula."""
        proof = Proof()
        position = job.at
        if job.copy is not None:
            position += file.put(position, job.copy)
        if job.info is not None:
            rows = self._take_rows()
            for part in rows.of(job.info, job.modules, TORCH_DTYPES[self.dtype_of(job.info)], proof):
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
    total = sum(info.numel * TORCH_DTYPES[plan.dtype_of(info)].itemsize for info in base.tensors.values())
    index["metadata"] = {**(index.get("metadata") or {}), "total_size": total}
    index["weight_map"] = {name: base.relative(info.file) for name, info in base.tensors.items()}
    (out / INDEX_NAME).write_text(json.dumps(index, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _with_dtype(config: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """The config with its dtype corrected, under the key that it uses (`torch_dtype` before Transformers 5)."""
    key = "torch_dtype" if "torch_dtype" in config and "dtype" not in config else "dtype"
    return {**config, key: dtype}


def _adapter_licences(adapters: Sequence[Adapter], out: Path) -> tuple[str, ...]:
    names: list[str] = []
    for number, adapter in enumerate(adapters, 1):
        label = "adapter" if len(adapters) == 1 else f"adapter{number}"
        names += copy_licences(adapter.root, out, label)
    return tuple(names)


def _adapter_facts(adapter: Adapter) -> dict[str, Any]:
    modules = adapter.modules.values()
    return {
        "name": adapter.root.resolve().name,
        "sha256": adapter.digest(),
        "base_model_name_or_path": adapter.config.get("base_model_name_or_path"),
        "modules": len(modules),
        "ranks": sorted({module.a.shape[0] for module in modules}),
        "scalings": sorted({module.scaling for module in modules}),
        "rslora": bool(adapter.config.get("use_rslora")),
    }
