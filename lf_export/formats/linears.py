"""What formats that quantize the decoder's linears share: which these are, their group size, what is said of them."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from lf_export.checkpoint.index import Checkpoint
from lf_export.errors import InputError
from lf_export.formats.base import significant
from lf_export.formats.shards import Entry
from lf_export.quant.ggml_gptq import Compensated
from lf_export.quant.grid import Scheme
from lf_export.quant.solve import Solution
from lf_export.walk.families import family_of, num_layers

# What `auto` tries, the coarsest first: all have kernels in the runtimes that load the formats.
AUTO_SIZES = (128, 64, 32, 16)


def _sensible(size: int | str) -> int | str:
    if isinstance(size, int) and size < 1 and size != -1:
        raise ValueError("group_size is a number of columns, -1 or auto")
    return size


GroupSize = Annotated[int | Literal["auto"], AfterValidator(_sensible)]
"""Input columns that share a scale; -1: one scale a row; auto: the largest of `AUTO_SIZES` that divides every width."""


def linear_names(checkpoint: Checkpoint) -> Iterator[str]:
    """The modules whose weights are quantized, in order."""
    family = family_of(checkpoint.config)
    for index in range(num_layers(checkpoint.config)):
        for linear in family.linears_at(index):
            yield f"{family.prefix(index)}.{linear}"


def group_shapes(checkpoint: Checkpoint) -> Iterator[list[tuple[int, int]]]:
    """For each distinct input of a linear of the decoder the shapes [out, in] of the linears that read it, in order."""
    family = family_of(checkpoint.config)
    for index in range(num_layers(checkpoint.config)):
        for group in family.groups_at(index):
            shapes = [checkpoint.info(f"{family.prefix(index)}.{linear}.weight").shape for linear in group]
            yield [(shape[0], shape[1]) for shape in shapes]


def group_size_for(
    checkpoint: Checkpoint,
    wanted: int | Literal["auto"],
    unpackable: Callable[[int, int], str | None],
    *,
    whole_rows: bool = True,
    modules: Collection[str] | None = None,
) -> int:
    """The group size that `wanted` stands for, every width checked against it.

    Args:
        checkpoint: the model.
        wanted: an option of type `GroupSize`.
        unpackable: (out_width, in_width) → why the layout cannot hold such a matrix, or None.
        whole_rows: whether the layout has one scale a row (-1).
        modules: the linears that it is for, None for all.

    Raises:
        InputError: a weight that is no matrix, that the layout cannot hold or that the group size does not divide.
    """
    inputs: dict[int, str] = {}
    problems = []
    for module in linear_names(checkpoint) if modules is None else modules:
        name = f"{module}.weight"
        shape = checkpoint.info(name).shape
        if len(shape) != 2:
            problems.append(f"{name}: shape {list(shape)}, a matrix was expected")
            continue
        out_width, in_width = shape
        inputs.setdefault(in_width, name)
        problem = unpackable(out_width, in_width)
        if problem is not None:
            problems.append(f"{name}: {problem}")
    fitting = [size for size in AUTO_SIZES if all(width % size == 0 for width in inputs)]
    admitted = [*fitting, -1] if whole_rows else fitting
    size = wanted if wanted != "auto" else admitted[0] if admitted else AUTO_SIZES[-1]
    expected = ", ".join(map(str, admitted)) or "none"
    problems += [
        f"group_size {size} does not divide the input width {width} ({name}), expected one of {expected}"
        for width, name in inputs.items()
        if size != -1 and width % size
    ]
    if problems:
        raise InputError.of(problems[:8], "group_size: auto takes the largest that fits")
    return size


def entries_with(
    checkpoint: Checkpoint, linears: Collection[str], parts: Callable[[str, Sequence[int]], Iterable[Entry]]
) -> Iterator[Entry]:
    """Everything that a folder's shards hold, in the checkpoint's own order.

    Args:
        checkpoint: the model.
        linears: the modules that are quantized; the rest is stored as it is.
        parts: (module, [out, in]) → what is stored of a quantized linear.
    """
    for name, info in checkpoint.tensors.items():
        module = name.removesuffix(".weight")
        if module != name and module in linears:
            yield from parts(module, info.shape)
        else:
            yield Entry(name, info.dtype, tuple(info.shape))


def gptq_entries(checkpoint: Checkpoint, schemes: Mapping[str, Scheme]) -> Iterator[Entry]:
    """Everything that the shards of a GPTQ folder hold; `schemes` are those of each module that is quantized."""
    return entries_with(checkpoint, schemes, lambda module, shape: packed_entries(module, shape, schemes[module]))


def packed_entries(module: str, shape: Sequence[int], scheme: Scheme) -> Iterator[Entry]:
    """The four tensors of one GPTQ linear [out, in]."""
    out_width, in_width = shape
    groups = in_width // scheme.columns(in_width)
    yield Entry(f"{module}.qweight", "I32", (in_width * scheme.bits // 32, out_width))
    yield Entry(f"{module}.qzeros", "I32", (groups, out_width * scheme.bits // 32))
    yield Entry(f"{module}.scales", "F16", (groups, out_width))
    yield Entry(f"{module}.g_idx", "I32", (in_width,))


def solution_facts(solution: Solution) -> dict[str, Any]:
    """What a manifest says of a linear that GPTQ solved, as JSON values."""
    return {
        "method": solution.method,
        "error": significant(solution.error),
        "rtn_error": significant(solution.rtn_error),
        "judged_on": solution.judged_on,
        **circumstances(solution),
    }


def circumstances(solution: Solution | Compensated) -> dict[str, Any]:
    """Damping, dead inputs, the reason of a fallback and why other tokens than its own served, where there are any."""
    facts: dict[str, Any] = {}
    if solution.damp is not None:
        facts["damp_percent"] = solution.damp
    if solution.dead:
        facts["dead_inputs"] = solution.dead
    if solution.reason:
        facts["reason"] = solution.reason
    if solution.pooled:
        facts["pooled"] = solution.pooled
    return facts


def mean_of(linears: Mapping[str, Mapping[str, Any]], key: str) -> float:
    """The mean of a figure over all linears' facts."""
    return significant(sum(facts[key] for facts in linears.values()) / len(linears))
