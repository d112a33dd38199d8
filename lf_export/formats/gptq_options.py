"""The options of a GPTQ target, and the scheme that they give each linear of a checkpoint."""

import difflib
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from fractions import Fraction
from math import floor
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from lf_export.checkpoint.index import Checkpoint
from lf_export.errors import InputError
from lf_export.formats.base import FormatOptions
from lf_export.formats.experts import refuse_experts
from lf_export.formats.linears import GroupSize, group_size_for, linear_names
from lf_export.quant.grid import BITS, Scheme
from lf_export.quant.pack import alignment

Bits = Literal[2, 3, 4, 8]


def _width(bits: float) -> int | float:
    whole = float(bits).is_integer()
    if bits not in BITS and (whole or not min(BITS) < bits < max(BITS)):
        known = ", ".join(map(str, BITS))
        raise ValueError(f"expected {known}, or an average between 2 and 8 that is not an integer, found {bits:g}")
    return int(bits) if whole else bits


BitsOrAverage = Annotated[float, AfterValidator(_width)]
"""Bits of each weight, an integer; or what the stored weights may take on average, scales apart."""

# What the linears that matter most get, by what the others have. Squared errors fall by four with each bit: two bits
# more than 2 take 94 % of a damage away, and each further bit next to nothing.
_HIGHER = {2: 4, 3: 4, 4: 8}


class LinearOverride(BaseModel):
    """What deviates for the linears that a pattern matches; None: as it is elsewhere.

    Attributes:
        bits: of each weight.
        group_size: input columns that share a scale; -1: one scale a row.
        skip: whether the linears stay as they are.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    bits: Bits | None = None
    group_size: GroupSize | None = None
    skip: bool | None = None


def _pairs(value: Any) -> Any:
    return tuple(value.items()) if isinstance(value, Mapping) else value


Overrides = Annotated[tuple[tuple[str, LinearOverride], ...], BeforeValidator(_pairs)]
"""Pattern and what it changes, in order (a mapping is taken too): digests and manifests sort mappings, and order counts
here."""


class GptqOptions(FormatOptions):
    """The options of a GPTQ target, in the words of the checkpoints' own config keys.

    Attributes:
        bits: of each weight; an average such as 4.25: some linears get more than the others, by measured damage.
        group_size: input columns that share a scale; -1: one scale a row; auto: the largest of 128, 64, 32 and 16
            that divides every width.
        sym: the zero is the middle of the grid; more kernels serve it.
        desc_act: store groups in the order of activation (slower at run time).
        act_order: quantize columns in the order of activation, groups in place (costs nothing at run time).
        clip_search: choose each group's range by its weighted error.
        damp_percent: damping, as a share of the mean of diag(H); multiplied by ten when it does not suffice.
        overrides: globs over full module names, and what deviates there. For each key the last pattern that matches
            and names the key wins.
    """

    bits: BitsOrAverage = 4
    group_size: GroupSize = "auto"
    sym: bool = True
    desc_act: bool = False
    act_order: bool = True
    clip_search: bool = True
    damp_percent: Annotated[float, Field(gt=0, lt=1)] = 0.01
    overrides: Overrides = ()

    @property
    def widths(self) -> tuple[int, ...]:
        """The bits of linears without an override: one number, or for an average the lower and the higher."""
        for bits in BITS:
            if bits == self.bits:
                return (bits,)
        low = 4 if self.bits > 4 else 3 if self.bits > 3 else 2
        return low, _HIGHER[low]


_ONE_UNIT = "kernels run the experts of a layer as one and need the same bits for all; take 2, 3, 4 or 8"

Choices = dict[str, tuple[Scheme, ...]]
"""Of each quantized linear the schemes that it may get: one, or, where bits is an average, the lower and the higher."""


def choices_of(checkpoint: Checkpoint, options: GptqOptions) -> tuple[Scheme, Choices]:
    """The scheme that most linears take, and what each quantized linear may get; what is skipped is not named.

    Raises:
        InputError: a pattern that matches no linear, widths that do not fit a linear's bits or group size, nothing
            left to quantize or to choose, an average that overrides alone exceed, an architecture that is not known.
    """
    names = list(linear_names(checkpoint))
    deviations = _deviations(names, options.overrides)
    kept = [name for name in names if not deviations[name].get("skip")]
    if not kept:
        raise InputError("overrides: every linear is skipped, nothing is left to quantize")
    fixed = options.model_dump(exclude={"overrides", "bits", "group_size"})
    usual = [name for name in kept if "group_size" not in deviations[name]]
    problems: list[str] = []
    hint = None

    def size_of(wanted: int | Literal["auto"], modules: list[str]) -> int:
        nonlocal hint
        try:
            return group_size_for(checkpoint, wanted, lambda _, __: None, modules=modules)
        except InputError as error:
            problems.extend(error.message.splitlines())
            hint = error.hint
            return -1

    # where every linear has a size of its own, the one in the config is that of a linear, not a guess
    common = size_of(options.group_size, usual) if usual else None
    choices: Choices = {}
    for name in kept:
        deviation = deviations[name]
        size = size_of(deviation["group_size"], [name]) if "group_size" in deviation or common is None else common
        widths = (deviation["bits"],) if "bits" in deviation else options.widths
        problems += [problem for bits in widths for problem in _unpackable(checkpoint, name, bits)]
        choices[name] = tuple(Scheme(bits=bits, group_size=size, **fixed) for bits in widths)
    if problems:
        raise InputError.of(problems[:8], hint)
    size = next(iter(choices.values()))[0].group_size if common is None else common
    if len(options.widths) > 1:
        refuse_experts(checkpoint, f"an average of {options.bits:g} bits", _ONE_UNIT)
        extra_bits(checkpoint, options, choices)
    return Scheme(bits=options.widths[0], group_size=size, **fixed), choices


def extra_bits(checkpoint: Checkpoint, options: GptqOptions, choices: Choices) -> int:
    """How many bits an average leaves to spend, over the lower choice of every linear.

    Raises:
        InputError: overrides leave nothing to choose, or take more than the average already.
    """
    weights = {name: checkpoint.info(f"{name}.weight").numel for name in choices}
    if not any(len(schemes) > 1 for schemes in choices.values()):
        raise InputError(f"overrides: they fix every linear, nothing is left to choose for bits: {options.bits:g}")
    least = sum(count * choices[name][0].bits for name, count in weights.items())
    total = sum(weights.values())
    extra = floor(Fraction(str(options.bits)) * total) - least
    if extra < 0:
        raise InputError(
            f"overrides: what they fix makes an average of {least / total:.3f} bits at the least, "
            f"above bits: {options.bits:g}",
            "raise bits, or fix fewer linears",
        )
    return extra


def average_bits(checkpoint: Checkpoint, schemes: Mapping[str, Scheme]) -> float:
    """The bits of a stored weight on average, scales and what is not quantized apart."""
    weights = {name: checkpoint.info(f"{name}.weight").numel for name in schemes}
    return sum(count * schemes[name].bits for name, count in weights.items()) / sum(weights.values())


def _deviations(names: list[str], overrides: Overrides) -> dict[str, dict[str, Any]]:
    """For each linear the keys that deviate; the last pattern that matches wins, key by key."""
    found: dict[str, dict[str, Any]] = {name: {} for name in names}
    problems, hints = [], []
    for pattern, override in overrides:
        matched = [name for name in names if fnmatchcase(name, pattern)]
        for name in matched:
            found[name] |= override.model_dump(exclude_none=True)
        if not matched:
            problems.append(f"overrides: {pattern!r} matches no linear, expected a glob over names such as {names[0]}")
            close = difflib.get_close_matches(pattern, _known_patterns(names), n=1)
            hints += [f"did you mean {close[0]!r}?"] if close else []
    if problems:
        raise InputError.of(problems, hints[0] if hints else None)
    return found


def _known_patterns(names: list[str]) -> list[str]:
    """What a pattern may have been meant to be: full names, a layer, a linear in every layer."""
    known: dict[str, None] = {}
    for name in names:
        parts = name.split(".")
        known |= dict.fromkeys([name, f"*.{parts[-1]}", f"*.{'.'.join(parts[-2:])}", f"{'.'.join(parts[:-2])}.*"])
    return list(known)


def _unpackable(checkpoint: Checkpoint, module: str, bits: int) -> Iterator[str]:
    aligned = alignment(bits)
    shape = checkpoint.info(f"{module}.weight").shape
    if len(shape) == 2 and any(width % aligned for width in shape):
        yield (
            f"{module}.weight: {list(shape)} cannot be packed at {bits} bits, "
            f"expected widths that are multiples of {aligned}"
        )
