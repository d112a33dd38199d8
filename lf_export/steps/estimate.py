"""What a step will cost in bytes and seconds, from headers and options alone; estimates, and said to be so."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from lf_export.checkpoint.header import DTYPE_BYTES
from lf_export.checkpoint.index import Checkpoint
from lf_export.errors import InputError
from lf_export.formats import FORMATS
from lf_export.formats.linears import group_shapes
from lf_export.formats.pace import Pace
from lf_export.metrics.kept import MOST_TOKENS
from lf_export.recipe import CalibrationRecipe, Recipe
from lf_export.steps.plan import bytes_text
from lf_export.steps.quantize import TargetPlan, format_options
from lf_export.walk.families import family_of, num_layers
from lf_export.walk.stream import compute_dtype

_INTERPRETER = 350_000_000
"""Resident bytes of Python with torch loaded and one layer class imported."""

_BLOCK = 150_000_000
"""Resident bytes of a merge's row blocks and copies."""

_WALKER = 600_000_000
"""The same with Transformers and the formats' libraries."""

_WEIGHTS_SOLVED, _MOMENTS_SOLVED = 8, 5
"""Copies of a group's weights (the matrix, its errors, both roundings, what they are judged by) and of its H
(reversed, its factor, both orders of it) while the group is solved. `benchmarks/memory.py` compares with what the
system charges: at width 512, GPTQ, 518 MB where 692 MB were said."""

_HELDOUT_ROWS = 128
"""Rows of each input that are set aside, see `walk.batches`."""

_DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Cost:
    """Bytes: read, written, resident at the peak, and on disk only while the step runs; None where not known yet."""

    reads: int | None
    writes: int | None
    peak_memory: int | None
    scratch: int = 0


def threads(wanted: int | None) -> int:
    """The threads to use: as asked for, else every core that the process may use."""
    return wanted or len(os.sched_getaffinity(0))


def merge(base: Checkpoint | None, dtype: str | None) -> Cost:
    """A merge reads the base once and writes it once; memory does not depend on its size."""
    if base is None:
        return Cost(None, None, _INTERPRETER + _BLOCK)
    stored = sum(info.numel * DTYPE_BYTES[info.dtype] for info in base.tensors.values())  # unpacked, if it is packed
    writes = stored if dtype is None else _elements(base) * _DTYPE_BYTES[dtype]
    return Cost(_bytes(base), writes, _INTERPRETER + _BLOCK)


def calibrate(recipe: CalibrationRecipe) -> Cost:
    """Token ids and classes: five bytes a token, and the tokenizer in memory."""
    return Cost(0, 5 * _tokens(recipe), _INTERPRETER + _BLOCK)


def quantize(
    base: Checkpoint | None, plan: TargetPlan, recipe: Recipe, targets: Sequence[TargetPlan], budget: int
) -> Cost:
    """One pass reads the model once, for all targets; its cost stands at the first of them.

    The activations between two layers are on disk twice while it runs, and in memory up to `budget` bytes.
    """
    if base is None:
        return Cost(None, None, None)
    writes = FORMATS[plan.format].size(base, format_options(plan, 1))
    # one pass makes all of them, so what they need meanwhile lies there together, both sides of the activations too
    scratch = sum(FORMATS[each.format].scratch(base, format_options(each, 1)) for each in targets)
    first = plan.name == targets[0].name
    tokens = _tokens(recipe.calibration)
    activations = 4 * tokens * int(base.config.get("hidden_size", 0))
    memory = quantize_memory(base, targets if first else [plan], tokens, budget)
    return Cost(_bytes(base) if first else 0, writes, memory, scratch + 2 * activations)


def target_disk(base: Checkpoint, plan: TargetPlan) -> int:
    """Bytes on disk that a target takes while it is made, activations apart."""
    options = format_options(plan, 1)
    return FORMATS[plan.format].size(base, options) + FORMATS[plan.format].scratch(base, options)


def quantize_seconds(
    base: Checkpoint, plans: Sequence[TargetPlan], recipe: Recipe, threads: int
) -> dict[str, float | None]:
    """Seconds of each target, None where nobody knows; the pass over the data stands at the first of them.

    The work is counted from shapes; the rates are measured now, on this machine, in a second or two. The pass over the
    data stands at the first whose time is known.
    """
    import torch  # noqa: PLC0415 - heavy

    pace = Pace(threads)
    seconds = {plan.name: FORMATS[plan.format].seconds(base, format_options(plan, threads), pace) for plan in plans}
    tokens = _tokens(recipe.calibration)
    groups = list(group_shapes(base))
    forward = 2 * tokens * sum(out * n for group in groups for out, n in group)
    moments = tokens * sum(group[0][1] ** 2 for group in groups)  # half of a symmetric product
    walked = pace.products(forward + moments, compute_dtype(torch.device("cpu")))
    for name, each in seconds.items():
        if each is not None:
            seconds[name] = each + walked
            break
    return seconds


def bench(base: Checkpoint | None, recipe: Recipe) -> Cost:
    """The largest artifact is in memory once, in a child; the baseline's likely tokens lie on disk meanwhile."""
    if base is None or recipe.bench is None:
        return Cost(None, 1_000_000, None)
    size = _bytes(base)
    vocabulary = int(base.config.get("vocab_size", 0))
    answer_tokens = 64
    scratch = recipe.bench.fidelity_items * answer_tokens * min(vocabulary, MOST_TOKENS) * 8
    return Cost(size * (1 + len(recipe.quantize)), 1_000_000, 2 * _INTERPRETER + size, scratch)


def quantize_memory(base: Checkpoint, targets: Sequence[TargetPlan], tokens: int, budget: int) -> int:
    """Resident bytes at the peak of a quantize step.

    Args:
        base: the model.
        targets: made in one pass.
        tokens: of the calibration data.
        budget: bytes of activations that may be held.
    """
    activations = 4 * tokens * int(base.config.get("hidden_size", 0))
    memory = _WALKER + _walk_memory(base) + min(activations, budget)
    if any(plan.format == "onnx" for plan in targets):  # its builder is a child, measured at 3.6 times a bf16 model
        memory = max(memory, _WALKER + 4 * _bytes(base))
    return memory


def activations_within(memory: int, base: Checkpoint, targets: Sequence[TargetPlan]) -> int:
    """What a quantize step may hold of activations so that it keeps within `memory` bytes in all.

    Raises:
        InputError: it needs more without any.
    """
    floor = quantize_memory(base, targets, 0, 0)
    if memory <= floor:
        raise InputError(
            f"memory: {bytes_text(memory)} are not enough: a layer of this model, its moments and what it takes to "
            f"quantize it need about {bytes_text(floor)}",
            f"give --memory {-(-floor // 10**8) / 10:.1f}GB or more; more activations than fit lie on disk",
        )
    return memory - floor


def _walk_memory(base: Checkpoint) -> int:
    """The largest layer: its weights and moments in fp32, its held-out rows, and what solving one group takes.

    Of a layer with experts every expert has moments of its own.
    """
    family = family_of(base.config)
    largest = 0
    for index in range(num_layers(base.config)):
        shapes = [
            [base.info(f"{family.prefix(index)}.{linear}.weight").shape for linear in group]
            for group in family.groups_at(index)
        ]
        weights = sum(prod(shape) for group in shapes for shape in group)
        moments = sum(group[0][1] ** 2 for group in shapes)
        heldout = _HELDOUT_ROWS * sum(group[0][1] for group in shapes)
        work = max(
            _WEIGHTS_SOLVED * sum(prod(shape) for shape in group) + _MOMENTS_SOLVED * group[0][1] ** 2
            for group in shapes
        )
        largest = max(largest, weights + moments + heldout + work)
    return 4 * largest


def _tokens(recipe: CalibrationRecipe) -> int:
    typical = 256  # tokens in a conversation of the shipped set, rounded up
    return recipe.num_samples * min(recipe.max_seq_length, typical)


def _bytes(base: Checkpoint) -> int:
    return sum(info.nbytes for info in base.tensors.values())


def _elements(base: Checkpoint) -> int:
    return sum(prod(info.shape) for info in base.tensors.values())
