"""How long the tensors of GGUF files take to be rounded."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import prod

import torch

from lf_export.checkpoint.index import Checkpoint
from lf_export.formats.gguf_plan import Method, Planned
from lf_export.formats.linears import group_shapes
from lf_export.formats.pace import Pace, feedback_operations
from lf_export.quant.ggml import GgmlType, quantize
from lf_export.quant.ggml_gptq import Compensator
from lf_export.quant.moments import Moments


def rounding_seconds(checkpoint: Checkpoint, files: Mapping[str, Sequence[Planned]], threads: int, pace: Pace) -> float:
    """Each file is rounded by itself; the factors of error feedback are made once for all of them."""
    rounds = sum(any(each.method == "gptq" for each in planned) for planned in files.values())
    seconds = sum(_file_seconds(planned, threads, pace) for planned in files.values())
    return seconds + (pace.products(feedback_operations(group_shapes(checkpoint), rounds)) if rounds else 0.0)


def _file_seconds(planned: Iterable[Planned], threads: int, pace: Pace) -> float:
    counts: Counter[tuple[GgmlType, Method]] = Counter()
    for each in planned:
        if each.method is not None:
            counts[each.kind, each.method] += prod(each.tensor.shape)
    return sum(_seconds(kind, method, threads, pace, count) for (kind, method), count in counts.items())


def _seconds(kind: GgmlType, method: Method, threads: int, pace: Pace, weights: int) -> float:
    def round_one(W: torch.Tensor, moments: Moments) -> object:
        importance = None if method == "rtn" else moments.H.diagonal().numpy()
        if method == "gptq":
            return Compensator(moments, None, threads=threads).solve({"linear": W}, kind, importance)
        return quantize(W.numpy(), kind, importance, threads)

    return pace.rounding(("gguf", kind.name, method), round_one, weights)
