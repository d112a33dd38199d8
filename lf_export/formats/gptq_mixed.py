"""Mixed precision: both roundings of each linear are kept on disk, and the damage that was measured chooses.

Linears that vLLM and SGLang run as one (q, k and v; gate and up: those that share an input) are measured and chosen
together, because those kernels need the same bits. A damage is the share of the layer's output that changes
(`walk.response`), so that it can be compared between linears of any size, place and input.
"""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lf_export.checkpoint.header import TensorInfo
from lf_export.checkpoint.index import Checkpoint
from lf_export.checkpoint.staging import disk_errors
from lf_export.formats.base import significant
from lf_export.formats.gptq_options import Choices
from lf_export.formats.linears import packed_entries, solution_facts
from lf_export.formats.shards import Entry, Shards
from lf_export.quant.budget import ranked, spend
from lf_export.quant.gptq import dequantize
from lf_export.quant.grid import Scheme
from lf_export.quant.pack import pack
from lf_export.quant.solve import Solution
from lf_export.walk.view import LayerView

_SCRATCH = ".candidates"


@dataclass(frozen=True)
class Unit:
    """Linears that get the same bits.

    Attributes:
        modules: their full names.
        weights: how many they have.
        damage: by bits, what that rounding changes.
    """

    modules: tuple[str, ...]
    weights: int
    damage: Mapping[int, float]


class Candidates:
    """Every rounding that a linear may get, packed, in a folder that lives as long as the walk.

    Args:
        checkpoint: the model.
        out: the artifact's staging folder.
        choices: what each linear may get.
    """

    def __init__(self, checkpoint: Checkpoint, out: Path, choices: Choices) -> None:
        self._checkpoint = checkpoint
        self._folder = out / _SCRATCH
        with disk_errors(out):
            self._folder.mkdir(exist_ok=True)
        self._shards = Shards(self._folder, list(candidate_entries(checkpoint, choices)))
        self._bits = {module: schemes[0].bits for module, schemes in choices.items()}
        self._units: list[Unit] = []
        self._facts: dict[tuple[str, int], dict[str, Any]] = {}
        self._why: dict[str, dict[str, Any]] = {}

    def put(self, module: str, solution: Solution) -> None:
        """Keep a rounding of a linear."""
        self._facts[module, solution.quantized.bits] = solution_facts(solution)
        for part, tensor in pack(solution.quantized).items():
            self._shards.put(f"{module}.{part}.{solution.quantized.bits}", tensor)

    def measure(self, view: LayerView, solved: Mapping[str, Mapping[Scheme, Solution]]) -> None:
        """Measure what each rounding of linears that share an input changes; those without a choice are left out.

        Args:
            view: the layer.
            solved: relative name → scheme → its solution.
        """
        free = {name: found for name, found in solved.items() if len(found) > 1}
        if not free:
            return
        by_bits: dict[int, dict[str, Solution]] = {}
        for name, found in free.items():
            for scheme, solution in found.items():
                by_bits.setdefault(scheme.bits, {})[name] = solution
        damage = {bits: self._damage(view, by_bits[bits]) for bits in sorted(by_bits)}
        modules = tuple(f"{view.prefix}.{name}" for name in free)
        weights = sum(self._checkpoint.info(f"{module}.weight").numel for module in modules)
        self._units.append(Unit(modules, weights, damage))

    def snapshot(self) -> dict[str, Any]:
        """What is kept and what was measured, as JSON values."""
        return {
            "written": self._shards.snapshot(),
            "units": [[list(unit.modules), unit.weights, list(unit.damage.items())] for unit in self._units],
            "facts": [[module, bits, facts] for (module, bits), facts in self._facts.items()],
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go on after a snapshot."""
        self._shards.restore(snapshot["written"])
        self._units = [Unit(tuple(modules), weights, dict(damage)) for modules, weights, damage in snapshot["units"]]
        self._facts = {(module, bits): facts for module, bits, facts in snapshot["facts"]}

    def _damage(self, view: LayerView, chosen: Mapping[str, Solution]) -> float:
        if view.response is None:  # a single sample: nothing is held out, the linear's own error has to do
            return sum(solution.error for solution in chosen.values()) / len(chosen)
        return view.response({name: dequantize(solution.quantized) for name, solution in chosen.items()})

    def choose(self, extra: int) -> dict[str, int]:
        """Spend at most `extra` bits over the lower choice of every linear; gives each linear's bits."""
        costs, savings = [], []
        for unit in self._units:
            low, high = unit.damage
            costs.append(unit.weights * (high - low))
            savings.append(unit.damage[low] - unit.damage[high])
        taken = spend(costs, savings, extra)
        for place, i in enumerate(ranked(costs, savings), 1):
            unit = self._units[i]
            low, high = unit.damage
            damage = {str(width): significant(value) for width, value in unit.damage.items()}
            budget = "within the budget" if taken[i] else "beyond the budget"
            why = f"place {place} of {len(costs)} by damage saved per bit, {budget}"
            for module in unit.modules:
                self._bits[module] = high if taken[i] else low
                self._why[module] = {"damage": damage, "why": why}
        return dict(self._bits)

    def facts(self, module: str, bits: int) -> dict[str, Any]:
        """What the manifest says of a linear that got `bits`."""
        return self._facts[module, bits] | {"bits": bits} | self._why.get(module, {"why": "override"})

    def info(self, module: str, part: str, bits: int) -> TensorInfo:
        """Where a part of a rounding lies."""
        return self._shards.info(f"{module}.{part}.{bits}")

    def remove(self) -> None:
        """Give the disk back."""
        shutil.rmtree(self._folder)


def candidate_entries(checkpoint: Checkpoint, choices: Choices) -> Iterator[Entry]:
    """What the folder holds."""
    for module, schemes in choices.items():
        for scheme in schemes:
            for entry in packed_entries(module, checkpoint.info(f"{module}.weight").shape, scheme):
                yield Entry(f"{entry.name}.{scheme.bits}", entry.dtype, entry.shape)
