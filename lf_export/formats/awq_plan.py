"""What an AWQ folder will hold, from options and shapes alone."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from lf_export.checkpoint.index import Checkpoint
from lf_export.formats.base import FormatOptions
from lf_export.formats.experts import refuse_experts
from lf_export.formats.linears import GroupSize, entries_with, group_size_for, linear_names
from lf_export.formats.shards import Entry
from lf_export.quant.grid import Scheme

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
    group_size: GroupSize = "auto"
    zero_point: Literal[True] = True
    scale_search: bool = True
    clip_search: bool = True


def scheme_of(checkpoint: Checkpoint, options: AwqOptions) -> Scheme:
    """The scheme, with the group size that `auto` stands for.

    Raises:
        InputError: a width that does not fit the layout or the group size, an architecture that is not known or has
            experts.
    """
    refuse_experts(
        checkpoint, "awq", "one scale of a channel would have to serve all experts and the router; take gptq"
    )
    size = group_size_for(checkpoint, options.group_size, _unpackable)
    return Scheme(bits=options.bits, group_size=size, sym=False, clip_search=options.clip_search)


def _unpackable(out_width: int, _: int) -> str | None:
    return f"{out_width} outputs cannot be packed, expected a multiple of {_ALIGNED}" if out_width % _ALIGNED else None


def entries_of(checkpoint: Checkpoint, scheme: Scheme) -> Iterator[Entry]:
    """Everything that the folder's shards will hold, in the checkpoint's own order."""

    def parts(module: str, shape: Sequence[int]) -> Iterator[Entry]:
        out_width, in_width = shape
        groups = in_width // scheme.columns(in_width)
        yield Entry(f"{module}.qweight", "I32", (in_width, out_width // _ALIGNED))
        yield Entry(f"{module}.qzeros", "I32", (groups, out_width // _ALIGNED))
        yield Entry(f"{module}.scales", "F16", (groups, out_width))

    return entries_with(checkpoint, set(linear_names(checkpoint)), parts)


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
