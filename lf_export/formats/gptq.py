"""The GPTQ format: a Hugging Face folder that Transformers, vLLM and SGLang load as it is."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from lf_export import __version__
from lf_export.checkpoint.carry import copy_companions
from lf_export.checkpoint.index import Checkpoint
from lf_export.checkpoint.staging import disk_errors
from lf_export.errors import StepError
from lf_export.formats.base import ArtifactFacts, Format, FormatOptions, Snapshot
from lf_export.formats.linears import GroupSize, gptq_entries, group_size_for, linear_names, mean_of, solution_facts
from lf_export.formats.shards import Shards
from lf_export.progress import say
from lf_export.quant.grid import Scheme
from lf_export.quant.pack import alignment, pack
from lf_export.quant.solve import Solution, quantize_group
from lf_export.walk.families import family_of
from lf_export.walk.view import LayerView


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
    group_size: GroupSize = "auto"
    sym: bool = True
    desc_act: bool = False
    act_order: bool = True
    clip_search: bool = True
    damp_percent: Annotated[float, Field(gt=0, lt=1)] = 0.01


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
        self._linears = {f"{name}.weight" for name in linear_names(checkpoint)}
        self._linear_facts: dict[str, dict[str, Any]] = {}
        self._shards = Shards(out, list(gptq_entries(checkpoint, self._scheme)))

    def layer(self, view: LayerView) -> None:
        """Quantize the linears of a layer, those that share an input together, and write them."""
        for group in view.groups:
            weights = {name: view.weights[f"{name}.weight"] for name in group}
            solutions = quantize_group(weights, view.moments[group[0]], view.heldout.get(group[0]), self._scheme)
            for name, solution in solutions.items():
                self._write(f"{view.prefix}.{name}", solution)

    def snapshot(self) -> Snapshot:
        """Which tensors are written, and what is known of the linears."""
        return Snapshot({"linears": self._linear_facts, "written": self._shards.snapshot()})

    def restore(self, snapshot: Snapshot) -> None:
        """Go on after a snapshot."""
        self._linear_facts = dict(snapshot.facts["linears"])
        self._shards.restore(snapshot.facts["written"])

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
        self._linear_facts[module] = solution_facts(solution)
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
            "error": mean_of(linears, "error"),
            "rtn_error": mean_of(linears, "rtn_error"),
            "fallbacks": {name: facts["reason"] for name, facts in linears.items() if facts["method"] == "rtn"},
            "linears": linears,
        }


def _scheme_of(checkpoint: Checkpoint, options: GptqOptions) -> Scheme:
    """The scheme, with the group size that `auto` stands for; every width is checked against it."""
    aligned = alignment(options.bits)

    def unpackable(out_width: int, in_width: int) -> str | None:
        if in_width % aligned == 0 and out_width % aligned == 0:
            return None
        return (
            f"[{out_width}, {in_width}] cannot be packed at {options.bits} bits, "
            f"expected widths that are multiples of {aligned}"
        )

    size = group_size_for(checkpoint, options.group_size, unpackable)
    return Scheme(**{**options.model_dump(), "group_size": size})


def _size(checkpoint: Checkpoint, options: GptqOptions) -> int:
    return sum(entry.nbytes for entry in gptq_entries(checkpoint, _scheme_of(checkpoint, options)))


FORMAT = Format(
    name="gptq",
    summary="a Hugging Face folder for Transformers, vLLM and SGLang",
    options=GptqOptions,
    open=GptqTarget,
    size=_size,
    schemes={f"W{bits}A16": {"bits": bits} for bits in (2, 3, 4, 8)},
)
