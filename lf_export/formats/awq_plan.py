"""What an AWQ folder will hold, from options and shapes alone."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import field_validator

from lf_export.checkpoint.index import Checkpoint
from lf_export.errors import InputError
from lf_export.formats.base import FormatOptions
from lf_export.formats.shards import Entry
from lf_export.quant.grid import Scheme
from lf_export.walk.families import family_of, num_layers

# What `auto` tries, the coarsest first: all have kernels in the runtimes that load the format.
_AUTO_SIZES = (128, 64, 32, 16)

# Outputs whose integers share a word.
_ALIGNED = 8


class AwqOptions(FormatOptions):
    """The options of an AWQ target, in the words of the checkpoints' own config keys.

    Attributes:
        bits: of each weight; the `gemm` layout has kernels for 4.
        group_size: input columns that share a scale; -1: one scale a row; auto: the largest of 128, 64, 32 and 16
            that divides every width.
        zero_point: each group has a zero of its own, as the kernels of the `gemm` layout expect.
        scale_search: scale the input's channels where that lowers the weighted error.
        clip_search: choose each group's range by its weighted error.
    """

    bits: Literal[4] = 4
    group_size: int | Literal["auto"] = "auto"
    zero_point: Literal[True] = True
    scale_search: bool = True
    clip_search: bool = True

    @field_validator("group_size")
    @classmethod
    def _sensible(cls, size: int | str) -> int | str:
        if isinstance(size, int) and size < 1 and size != -1:
            raise ValueError("group_size is a number of columns, -1 or auto")
        return size


def linears_of(checkpoint: Checkpoint) -> Iterator[str]:
    """The names of the weights that are quantized."""
    family = family_of(checkpoint.config)
    for index in range(num_layers(checkpoint.config)):
        for linear in family.linears:
            yield f"{family.prefix(index)}.{linear}.weight"


def scheme_of(checkpoint: Checkpoint, options: AwqOptions) -> Scheme:
    """The scheme, with the group size that `auto` stands for.

    Raises:
        InputError: a width that does not fit the layout or the group size, an architecture that is not known.
    """
    inputs: dict[int, str] = {}
    problems = []
    for name in linears_of(checkpoint):
        shape = checkpoint.info(name).shape
        if len(shape) != 2:
            problems.append(f"{name}: shape {list(shape)}, a matrix was expected")
            continue
        inputs.setdefault(shape[1], name)
        if shape[0] % _ALIGNED:
            problems.append(f"{name}: {shape[0]} outputs cannot be packed, expected a multiple of {_ALIGNED}")
    fitting = [size for size in _AUTO_SIZES if all(width % size == 0 for width in inputs)]
    size = options.group_size
    if size == "auto":
        size = fitting[0] if fitting else -1
    expected = ", ".join(str(size) for size in [*fitting, -1])
    problems += [
        f"group_size {size} does not divide the input width {width} ({name}), expected one of {expected}"
        for width, name in inputs.items()
        if size != -1 and width % size
    ]
    if problems:
        raise InputError.of(problems[:8], "group_size: auto takes the largest that fits")
    return Scheme(bits=options.bits, group_size=size, sym=False, clip_search=options.clip_search)


def entries_of(checkpoint: Checkpoint, scheme: Scheme) -> Iterator[Entry]:
    """Everything that the folder's shards will hold, in the checkpoint's own order."""
    linears = set(linears_of(checkpoint))
    for name, info in checkpoint.tensors.items():
        if name not in linears:
            yield Entry(name, info.dtype, tuple(info.shape))
            continue
        module = name.removesuffix(".weight")
        out_width, in_width = info.shape
        groups = in_width // scheme.columns(in_width)
        yield Entry(f"{module}.qweight", "I32", (in_width, out_width // _ALIGNED))
        yield Entry(f"{module}.qzeros", "I32", (groups, out_width // _ALIGNED))
        yield Entry(f"{module}.scales", "F16", (groups, out_width))


def quantization_config(scheme: Scheme, meta: dict[str, Any]) -> dict[str, Any]:
    """The `quantization_config` of config.json, as AutoAWQ wrote it."""
    return {
        "quant_method": "awq",
        "version": "gemm",
        "bits": scheme.bits,
        "group_size": scheme.group_size,
        "zero_point": True,
        "modules_to_not_convert": ["lm_head"],
        "meta": meta,
    }
