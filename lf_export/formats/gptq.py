"""The GPTQ format: a Hugging Face folder that Transformers, vLLM and SGLang load as it is."""

import json
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import torch

from lf_export.checkpoint.carry import copy_companions
from lf_export.checkpoint.index import Checkpoint
from lf_export.checkpoint.staging import disk_errors
from lf_export.errors import StepError
from lf_export.formats.base import ArtifactFacts, Format, Snapshot
from lf_export.formats.experts import Starved
from lf_export.formats.gptq_config import loads_in, quantization_config
from lf_export.formats.gptq_mixed import Candidates, candidate_entries
from lf_export.formats.gptq_options import GptqOptions, average_bits, choices_of, extra_bits
from lf_export.formats.linears import gptq_entries, group_shapes, linear_names, mean_of, solution_facts
from lf_export.formats.pace import Pace, feedback_operations
from lf_export.formats.shards import Shards
from lf_export.progress import say
from lf_export.quant.grid import Scheme
from lf_export.quant.moments import Moments
from lf_export.quant.pack import STORED, pack
from lf_export.quant.solve import GroupSolver, Solution
from lf_export.walk.view import LayerView

__all__ = ["FORMAT", "GptqOptions", "GptqTarget"]

# What is done for an expert's linear that saw too few tokens.
_POOLED = "calibrated on the tokens of all experts of the layer"
_ROUNDED = "rounded to nearest"
_SKIPPED = "not quantized"


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
        self._options = options
        self._scheme, self._choices = choices_of(checkpoint, options)
        self._schemes = {name: schemes[0] for name, schemes in self._choices.items()}
        self._linear_facts: dict[str, dict[str, Any]] = {}
        self._starved = Starved(checkpoint)
        self._candidates: Candidates | None = None
        if len(options.widths) > 1:  # which shapes the shards hold is known at the end
            self._candidates = Candidates(checkpoint, out, self._choices)
        else:
            self._shards = Shards(out, list(gptq_entries(checkpoint, self._schemes)))

    def layer(self, view: LayerView) -> None:
        """Quantize the linears of a layer, those that share an input and a scheme together, and write them."""
        self._starved.look(view)
        remedies = {f"{view.prefix}.{name}": _SKIPPED for group in view.groups for name in group}
        for group in view.groups:
            by_scheme: dict[Scheme, list[str]] = {}
            for name in group:
                for scheme in self._choices.get(f"{view.prefix}.{name}", ()):
                    by_scheme.setdefault(scheme, []).append(name)
            solver = GroupSolver(view.moments[group[0]], view.heldout.get(group[0]), view.pools.get(group[0]))
            solved: dict[str, dict[Scheme, Solution]] = {name: {} for name in group}
            for scheme, names in by_scheme.items():
                solutions = solver.solve({name: view.weights[f"{name}.weight"] for name in names}, scheme)
                for name, solution in solutions.items():
                    remedies[f"{view.prefix}.{name}"] = _POOLED if solution.method == "gptq" else _ROUNDED
                    self._write(f"{view.prefix}.{name}", solution)
                    solved[name][scheme] = solution
            if self._candidates is not None:
                self._candidates.measure(view, solved)
        self._starved.tell(view, remedies)

    def snapshot(self) -> Snapshot:
        """Which tensors are written, and what is known of the linears."""
        if self._candidates is not None:
            return Snapshot({"candidates": self._candidates.snapshot()})
        facts = {"linears": self._linear_facts, "starved": self._starved.snapshot()}
        return Snapshot(facts | {"written": self._shards.snapshot()})

    def restore(self, snapshot: Snapshot) -> None:
        """Go on after a snapshot."""
        if self._candidates is not None:
            self._candidates.restore(snapshot.facts["candidates"])
            return
        self._linear_facts = dict(snapshot.facts["linears"])
        self._starved.restore(snapshot.facts["starved"])
        self._shards.restore(snapshot.facts["written"])

    def finish(self) -> ArtifactFacts:
        """Copy what is not quantized, write config and companions, and prove that calibration beat rounding.

        Raises:
            StepError: the layers' error is not below that of rounding to nearest, or the disk is full.
        """
        if self._candidates is not None:
            self._choose(self._candidates)
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
        if self._candidates is not None:
            self._candidates.put(module, solution)
            return
        self._note(module, solution_facts(solution) | _deviation(self._scheme, self._schemes[module]))
        for part, tensor in pack(solution.quantized).items():
            self._shards.put(f"{module}.{part}", tensor)

    def _note(self, module: str, facts: dict[str, Any]) -> None:
        if "reason" in facts and module not in self._starved:  # which are told together
            say(f"{module}: rounded to nearest: {facts['reason']}")
        self._linear_facts[module] = facts

    def _choose(self, candidates: Candidates) -> None:
        """Lay the shards out as the measured damage says, and fill them with what was kept."""
        bits = candidates.choose(extra_bits(self._checkpoint, self._options, self._choices))
        for name, schemes in self._choices.items():
            self._schemes[name] = next(each for each in schemes if each.bits == bits[name])
        self._shards = Shards(self._out, list(gptq_entries(self._checkpoint, self._schemes)))
        for name in self._choices:
            self._note(name, candidates.facts(name, bits[name]) | _deviation(self._scheme, self._schemes[name]))
            for part in STORED:
                self._shards.copy(f"{name}.{part}", candidates.info(name, part, bits[name]))
        candidates.remove()

    def _facts(self) -> ArtifactFacts:
        scheme = self._scheme
        linears = self._linear_facts
        facts: dict[str, Any] = {
            "format": "gptq",
            "scheme": f"W{self._options.bits:g}A16",
            "options": {
                "bits": self._options.bits,
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
            **self._starved.facts(),
        }
        if self._candidates is not None:
            facts["average_bits"] = round(average_bits(self._checkpoint, self._schemes), 6)
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
    """Exact where every linear's bits are known; an average is counted as if all of it were spent."""
    _, choices = choices_of(checkpoint, options)
    schemes = {name: each[0] for name, each in choices.items()}
    size = sum(entry.nbytes for entry in gptq_entries(checkpoint, schemes))
    if len(options.widths) == 1:
        return size
    # a group stores a zero as wide as its weights
    columns = min(schemes[name].columns(checkpoint.info(f"{name}.weight").shape[1]) for name in schemes)
    return size + ceil(extra_bits(checkpoint, options, choices) / 8 * (1 + 1 / columns))


def _scratch(checkpoint: Checkpoint, options: GptqOptions) -> int:
    if len(options.widths) == 1:
        return 0
    return sum(entry.nbytes for entry in candidate_entries(checkpoint, choices_of(checkpoint, options)[1]))


def _seconds(checkpoint: Checkpoint, options: GptqOptions, pace: Pace) -> float:
    """Each linear is solved once for each number of bits that it may get."""
    _, choices = choices_of(checkpoint, options)
    tried: dict[Scheme, int] = {}
    for name, schemes in choices.items():
        for scheme in schemes:
            tried[scheme] = tried.get(scheme, 0) + checkpoint.info(f"{name}.weight").numel

    def rounding(scheme: Scheme) -> float:
        fitting = replace(scheme, group_size=min(scheme.group_size, 128))

        def quantize(W: torch.Tensor, moments: Moments) -> object:
            return GroupSolver(moments, None).solve({"linear": W}, fitting)

        return pace.rounding(("gptq", fitting), quantize, tried[scheme])

    rounds = max(len(schemes) for schemes in choices.values())
    return pace.products(feedback_operations(group_shapes(checkpoint), rounds)) + sum(map(rounding, tried))


FORMAT = Format(
    name="gptq",
    summary="a Hugging Face folder for Transformers, vLLM and SGLang",
    options=GptqOptions,
    open=GptqTarget,
    size=_size,
    scratch=_scratch,
    seconds=_seconds,
    schemes={f"W{bits}A16": {"bits": bits} for bits in (2, 3, 4, 8)},
)
