"""The GPTQ format: a Hugging Face folder that Transformers, vLLM and SGLang load as it is."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from lf_export import __version__
from lf_export.checkpoint.carry import copy_companions
from lf_export.checkpoint.index import Checkpoint
from lf_export.checkpoint.staging import disk_errors
from lf_export.errors import InputError, StepError
from lf_export.formats.base import ArtifactFacts, Format, FormatOptions, significant
from lf_export.formats.shards import Entry, Shards
from lf_export.progress import say
from lf_export.quant.grid import Scheme
from lf_export.quant.pack import alignment, pack
from lf_export.quant.solve import Solution, quantize_group
from lf_export.walk.families import family_of, num_layers
from lf_export.walk.view import LayerView

# What `auto` tries, the coarsest first: all have kernels in the runtimes that load the format.
_AUTO_SIZES = (128, 64, 32, 16)


class GptqOptions(FormatOptions):
    """The options of a GPTQ target, in the words of the checkpoints' own config keys.

    Attributes:
        bits: of each weight.
        group_size: input columns that share a scale; -1: one scale a row; auto: the largest of 128, 64, 32 and 16
            that divides every width.
        sym: the zero is the middle of the grid; more kernels serve it.
        desc_act: store groups in the order of activation (slower at run time).
        act_order: quantize columns in the order of activation, groups in place (costs nothing at run time).
        clip_search: choose each group's range by its weighted error.
        damp_percent: damping, as a share of the mean of diag(H); multiplied by ten when it does not suffice.
    """

    bits: Literal[2, 3, 4, 8] = 4
    group_size: int | Literal["auto"] = "auto"
    sym: bool = True
    desc_act: bool = False
    act_order: bool = True
    clip_search: bool = True
    damp_percent: Annotated[float, Field(gt=0, lt=1)] = 0.01

    @field_validator("group_size")
    @classmethod
    def _sensible(cls, size: int | str) -> int | str:
        if isinstance(size, int) and size < 1 and size != -1:
            raise ValueError("group_size is a number of columns, -1 or auto")
        return size


class GptqTarget:
    """Writes a GPTQ folder layer by layer; tensors that are not quantized are copied as they are.

    Args:
        checkpoint: the unquantized model.
        out: an existing, empty folder.
        options: how to quantize.
        audit_digest: of the calibration data, for the config's `meta`.

    Raises:
        InputError: the group size or the bits do not fit a width; the architecture is not known.
    """

    needs_moments = True

    def __init__(self, checkpoint: Checkpoint, out: Path, options: GptqOptions, audit_digest: str) -> None:
        self._checkpoint = checkpoint
        self._out = out
        self._audit_digest = audit_digest
        self._scheme = _scheme_of(checkpoint, options)
        self._family = family_of(checkpoint.config)
        self._linears = set(_linears(checkpoint))
        self._linear_facts: dict[str, dict[str, Any]] = {}
        self._shards = Shards(out, list(_entries(checkpoint, self._scheme)))

    def layer(self, view: LayerView) -> None:
        """Quantize the linears of a layer, those that share an input together, and write them."""
        for group in view.groups:
            weights = {name: view.weights[f"{name}.weight"] for name in group}
            solutions = quantize_group(weights, view.moments[group[0]], view.heldout.get(group[0]), self._scheme)
            for name, solution in solutions.items():
                self._write(f"{view.prefix}.{name}", solution)

    def finish(self) -> ArtifactFacts:
        """Copy what is not quantized, write config and companions, and prove that calibration beat rounding.

        Raises:
            StepError: the layers' error is not below that of rounding to nearest, or the disk is full.
        """
        if not any(facts["method"] == "gptq" for facts in self._linear_facts.values()):
            reasons = [f"{name}: {facts['reason']}" for name, facts in self._linear_facts.items()]
            raise StepError(
                f"calibration beat rounding to nearest in no linear ({'; '.join(reasons[:3])})",
                "give more calibration conversations, of the kind that the model will see",
            )
        for name, info in self._checkpoint.tensors.items():
            if name not in self._linears:
                self._shards.copy(name, info)
        self._shards.finish()
        config = self._quantization_config()
        with disk_errors(self._out):
            copy_companions(self._checkpoint.root, self._out, lambda base: {**base, "quantization_config": config})
            path = self._out / "quantize_config.json"
            path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        return self._facts()

    def _write(self, module: str, solution: Solution) -> None:
        if solution.reason:
            say(f"{module}: rounded to nearest: {solution.reason}")
        self._linear_facts[module] = _linear_facts(solution)
        for part, tensor in pack(solution.quantized).items():
            self._shards.put(f"{module}.{part}", tensor)

    def _quantization_config(self) -> dict[str, Any]:
        scheme = self._scheme
        return {
            "quant_method": "gptq",
            "checkpoint_format": "gptq",
            "bits": scheme.bits,
            "group_size": scheme.group_size,
            "sym": scheme.sym,
            "desc_act": scheme.desc_act,
            "static_groups": True,
            "true_sequential": False,
            "damp_percent": scheme.damp_percent,
            "lm_head": False,
            "pack_dtype": "int32",
            "meta": {"quantizer": [f"lf-export:{__version__}"], "calibration": self._audit_digest},
        }

    def _facts(self) -> ArtifactFacts:
        scheme = self._scheme
        linears = self._linear_facts
        return {
            "format": "gptq",
            "scheme": f"W{scheme.bits}A16",
            "options": {
                "bits": scheme.bits,
                "group_size": scheme.group_size,
                "sym": scheme.sym,
                "desc_act": scheme.desc_act,
                "act_order": scheme.act_order,
                "clip_search": scheme.clip_search,
                "damp_percent": scheme.damp_percent,
            },
            "error": significant(sum(facts["error"] for facts in linears.values()) / len(linears)),
            "rtn_error": significant(sum(facts["rtn_error"] for facts in linears.values()) / len(linears)),
            "fallbacks": {name: facts["reason"] for name, facts in linears.items() if facts["method"] == "rtn"},
            "linears": linears,
        }


def _linear_facts(solution: Solution) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "method": solution.method,
        "error": significant(solution.error),
        "rtn_error": significant(solution.rtn_error),
        "judged_on": solution.judged_on,
    }
    if solution.damp is not None:
        facts["damp_percent"] = solution.damp
    if solution.dead:
        facts["dead_inputs"] = solution.dead
    if solution.reason:
        facts["reason"] = solution.reason
    return facts


def _linears(checkpoint: Checkpoint) -> Iterator[str]:
    """The names of the weights that are quantized."""
    family = family_of(checkpoint.config)
    for index in range(num_layers(checkpoint.config)):
        for linear in family.linears:
            yield f"{family.prefix(index)}.{linear}.weight"


def _scheme_of(checkpoint: Checkpoint, options: GptqOptions) -> Scheme:
    """The scheme, with the group size that `auto` stands for; every width is checked against it."""
    inputs: dict[int, str] = {}
    problems = []
    aligned = alignment(options.bits)
    for name in _linears(checkpoint):
        shape = checkpoint.info(name).shape
        if len(shape) != 2:
            problems.append(f"{name}: shape {list(shape)}, a matrix was expected")
            continue
        out_width, in_width = shape
        inputs.setdefault(in_width, name)
        if in_width % aligned or out_width % aligned:
            problems.append(
                f"{name}: [{out_width}, {in_width}] cannot be packed at {options.bits} bits, "
                f"expected widths that are multiples of {aligned}"
            )
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
    return Scheme(**{**options.model_dump(), "group_size": size})


def _entries(checkpoint: Checkpoint, scheme: Scheme) -> Iterator[Entry]:
    """Everything that the folder's shards will hold, in the checkpoint's own order."""
    linears = set(_linears(checkpoint))
    for name, info in checkpoint.tensors.items():
        if name not in linears:
            yield Entry(name, info.dtype, tuple(info.shape))
            continue
        module = name.removesuffix(".weight")
        out_width, in_width = info.shape
        groups = in_width // scheme.columns(in_width)
        yield Entry(f"{module}.qweight", "I32", (in_width * scheme.bits // 32, out_width))
        yield Entry(f"{module}.qzeros", "I32", (groups, out_width * scheme.bits // 32))
        yield Entry(f"{module}.scales", "F16", (groups, out_width))
        yield Entry(f"{module}.g_idx", "I32", (in_width,))


def _size(checkpoint: Checkpoint, options: GptqOptions) -> int:
    return sum(entry.nbytes for entry in _entries(checkpoint, _scheme_of(checkpoint, options)))


FORMAT = Format(
    name="gptq",
    summary="a Hugging Face folder for Transformers, vLLM and SGLang",
    options=GptqOptions,
    open=GptqTarget,
    size=_size,
    schemes={f"W{bits}A16": {"bits": bits} for bits in (2, 3, 4, 8)},
)
