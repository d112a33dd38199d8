"""The GPTQ format: a Hugging Face folder that Transformers, vLLM and SGLang load as it is."""

import json
from pathlib import Path
from typing import Any

from lf_export.checkpoint.carry import copy_companions
from lf_export.checkpoint.index import Checkpoint
from lf_export.checkpoint.staging import disk_errors
from lf_export.errors import StepError
from lf_export.formats.base import ArtifactFacts, Format
from lf_export.formats.gptq_config import loads_in, quantization_config
from lf_export.formats.gptq_options import GptqOptions, schemes_of
from lf_export.formats.linears import gptq_entries, linear_names, mean_of, solution_facts
from lf_export.formats.shards import Shards
from lf_export.progress import say
from lf_export.quant.grid import Scheme
from lf_export.quant.pack import pack
from lf_export.quant.solve import GroupSolver, Solution
from lf_export.walk.view import LayerView

__all__ = ["FORMAT", "GptqOptions", "GptqTarget"]


class GptqTarget:
    """Writes a GPTQ folder layer by layer; tensors that are not quantized are copied as they are.

    Args:
        checkpoint: the unquantized model.
        out: an existing, empty folder.
        options: how to quantize.
        audit_digest: of the calibration data, for the config's `meta`.

    Raises:
        InputError: the group size or the bits do not fit a width, a pattern matches no linear; the architecture is not
            known.
    """

    needs_moments = True

    def __init__(self, checkpoint: Checkpoint, out: Path, options: GptqOptions, audit_digest: str) -> None:
        self._checkpoint = checkpoint
        self._out = out
        self._audit_digest = audit_digest
        self._scheme, self._schemes = schemes_of(checkpoint, options)
        self._linear_facts: dict[str, dict[str, Any]] = {}
        self._shards = Shards(out, list(gptq_entries(checkpoint, self._schemes)))

    def layer(self, view: LayerView) -> None:
        """Quantize the linears of a layer, those that share an input and a scheme together, and write them."""
        for group in view.groups:
            by_scheme: dict[Scheme, list[str]] = {}
            for name in group:
                scheme = self._schemes.get(f"{view.prefix}.{name}")
                if scheme is not None:
                    by_scheme.setdefault(scheme, []).append(name)
            solver = GroupSolver(view.moments[group[0]], view.heldout.get(group[0]))
            for scheme, names in by_scheme.items():
                solutions = solver.solve({name: view.weights[f"{name}.weight"] for name in names}, scheme)
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
            if name.removesuffix(".weight") not in self._schemes:
                self._shards.copy(name, info)
        self._shards.finish()
        config = quantization_config(self._checkpoint, self._scheme, self._schemes, self._audit_digest)
        with disk_errors(self._out):
            copy_companions(self._checkpoint.root, self._out, lambda base: {**base, "quantization_config": config})
            path = self._out / "quantize_config.json"
            path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        return self._facts()

    def _write(self, module: str, solution: Solution) -> None:
        if solution.reason:
            say(f"{module}: rounded to nearest: {solution.reason}")
        self._linear_facts[module] = solution_facts(solution) | _deviation(self._scheme, self._schemes[module])
        for part, tensor in pack(solution.quantized).items():
            self._shards.put(f"{module}.{part}", tensor)

    def _facts(self) -> ArtifactFacts:
        scheme = self._scheme
        linears = self._linear_facts
        facts: dict[str, Any] = {
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
        skipped = [name for name in linear_names(self._checkpoint) if name not in self._schemes]
        if skipped:
            facts["skipped"] = skipped
        if loads := loads_in(self._checkpoint, scheme, self._schemes):
            facts["loads_in"] = loads
        return facts


def _deviation(usual: Scheme, scheme: Scheme) -> dict[str, int]:
    """What a linear has other than most, for its entry in the manifest."""
    found = {}
    if scheme.bits != usual.bits:
        found["bits"] = scheme.bits
    if scheme.group_size != usual.group_size:
        found["group_size"] = scheme.group_size
    return found


def _size(checkpoint: Checkpoint, options: GptqOptions) -> int:
    return sum(entry.nbytes for entry in gptq_entries(checkpoint, schemes_of(checkpoint, options)[1]))


FORMAT = Format(
    name="gptq",
    summary="a Hugging Face folder for Transformers, vLLM and SGLang",
    options=GptqOptions,
    open=GptqTarget,
    size=_size,
    schemes={f"W{bits}A16": {"bits": bits} for bits in (2, 3, 4, 8)},
)
