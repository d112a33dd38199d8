"""The merge proof again, from what lies on disk: base and adapters against a merged folder, on sampled rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

from lf_export.checkpoint.adapter import Adapter
from lf_export.checkpoint.edits import plan_edits
from lf_export.checkpoint.index import Checkpoint, bounded
from lf_export.checkpoint.lora_config import Combine
from lf_export.checkpoint.proof import Proof
from lf_export.checkpoint.rows import Rows
from lf_export.errors import StepError
from lf_export.progress import stage


@dataclass(frozen=True, slots=True)
class Checked:
    """How much was compared, and the difference that came closest to what rounding explains."""

    tensors: int
    rows: int
    proof: Proof


def check_merged(
    base: Checkpoint,
    adapters: Sequence[Adapter],
    merged: Checkpoint,
    weights: Sequence[float] | None = None,
    combine: Combine = "in-order",
) -> Checked:
    """Check that `merged` is `base` with `adapters` merged in: every tensor, on rows that lie somewhere in it.

    Args:
        base: the base, as it was for the merge.
        adapters: the adapters, in the same order.
        merged: the result; its dtypes may be others than the base's.
        weights: what each adapter counts; 1 where it is not given.
        combine: how adapters were combined.

    Raises:
        InputError: an adapter does not fit, or a file cannot be read.
        StepError: a tensor is missing, too many, of another shape, or not what the formula gives.
    """
    edits = plan_edits(base, adapters, [1.0] * len(adapters) if weights is None else weights, combine)
    problems = [f"{merged.root}: no {name}" for name in edits.keys() - merged.tensors.keys()]
    problems += [f"{merged.root}: {name} should not be there" for name in merged.tensors.keys() - edits.keys()]
    for name in edits.keys() & merged.tensors.keys():
        there, wanted = merged.tensors[name].shape, edits[name].source.shape
        if there != wanted:
            problems.append(f"{merged.root}: {name} is {list(there)}, {list(wanted)} was expected")
    if problems:
        raise StepError.of(["verification failed:", *bounded(sorted(problems))])
    proof, rows, count = Proof(), Rows(), 0
    with stage("verify", len(edits), "tensors") as advance:
        for name, edit in edits.items():
            count += rows.check(edit, merged.tensors[name], proof, crc32(name.encode()))
            advance(1, name)
    return Checked(len(edits), count, proof)
