"""GPTQ for GGUF files: the linears of each layer, once for each type that a file asks for, ready to be written."""

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from lf_export.formats.gguf_arch import GgufTensor
from lf_export.formats.gguf_imatrix import Imatrix
from lf_export.formats.gguf_solved import Facts, facts_of, facts_of_experts, file_facts, sentence_of_experts
from lf_export.formats.gguf_writer import GgufFile, interleave
from lf_export.progress import say
from lf_export.quant.ggml import TYPES
from lf_export.quant.ggml_gptq import Compensated, Compensator
from lf_export.walk.view import LayerView

# The bytes of some tensors, by GGUF name: [rows, bytes of a row], or [experts, rows, bytes of a row].
Ready = dict[str, npt.NDArray[np.uint8]]


class _Place(NamedTuple):
    """Where a matrix of the checkpoint lies: in which tensor, and there which of its matrices."""

    tensor: GgufTensor
    matrix: int


class GgufGptq:
    """Compensates the linears of one layer after the other for several files, which share what they agree on.

    Types whose codes are no numbers (the IQ2 and IQ3 families) are left to llama.cpp's quantizer.

    Args:
        plan: every tensor of the files.
        files: what will be written.
        threads: how many pieces of a weight llama.cpp's quantizer works on at a time.
    """

    def __init__(self, plan: Iterable[GgufTensor], files: Sequence[GgufFile], threads: int = 1) -> None:
        self._files, self._threads = files, threads
        self._places = {
            source.name: _Place(tensor, matrix) for tensor in plan for matrix, source in enumerate(tensor.sources)
        }
        self._facts: dict[tuple[str, str], Facts] = {}

    def layer(self, view: LayerView, imatrix: Imatrix, told: Container[str] = ()) -> list[Ready]:
        """The bytes of a layer's linears for each file.

        Args:
            view: the layer.
            imatrix: the importance of the linears' inputs.
            told: linears, by full name, of which it is told elsewhere why they have llama.cpp's own codes.
        """
        ready: list[Ready] = [{} for _ in self._files]
        of_experts: defaultdict[tuple[str, str], dict[int, Facts]] = defaultdict(dict)
        quiet: set[tuple[str, int]] = set()
        for group in view.groups:
            weights, places = {}, {}
            for linear in group:
                module = f"{view.prefix}.{linear}"
                place = self._places[f"{module}.weight"]
                W = view.weights[f"{linear}.weight"]
                weights[place.tensor.name] = interleave(W, place.tensor.unit) if place.tensor.unit else W
                places[place.tensor.name] = place
                if module in told:
                    quiet.add((place.tensor.name, place.matrix))
            compensator = Compensator(
                view.moments[group[0]],
                view.heldout.get(group[0]),
                threads=self._threads,
                pool=view.pools.get(group[0]),
            )
            for kind in self._kinds(weights):
                wanted = {name: W for name, W in weights.items() if self._takers(name, kind)}
                first = next(iter(wanted))
                importance = imatrix.importance(first, places[first].matrix)
                for name, solved in compensator.solve(wanted, TYPES[kind], importance).items():
                    facts = facts_of(kind, solved)
                    if places[name].tensor.experts:
                        of_experts[name, kind][places[name].matrix] = facts
                    else:
                        self._remember(name, kind, facts)
                    for index in self._takers(name, kind):
                        _put(ready[index], places[name], solved)
        for (name, kind), each in of_experts.items():
            told_apart = {number for number in each if (name, number) in quiet}
            self._remember_experts(name, kind, [each[number] for number in sorted(each)], told_apart)
        return ready

    def snapshot(self) -> list[tuple[str, str, dict[str, Any]]]:
        """What is known of each linear in each type."""
        return [(name, kind, facts) for (name, kind), facts in self._facts.items()]

    def restore(self, facts: Sequence[tuple[str, str, dict[str, Any]]]) -> None:
        """Take what `snapshot` gave."""
        self._facts = {(name, kind): known for name, kind, known in facts}

    def facts(self, file: GgufFile) -> dict[str, Any]:
        """What is known of each linear of a file, for the manifest; empty where none was compensated."""
        if file not in self._files:  # another may hold some of its tensors in the same type, compensated
            return {}
        linears = {
            name: self._facts[name, each.kind.name]
            for name, each in file.planned.items()
            if each.method == "gptq" and (name, each.kind.name) in self._facts
        }
        return file_facts(linears) if linears else {}

    def _kinds(self, names: Mapping[str, torch.Tensor]) -> list[str]:
        """The types that the files ask for, of weights that get error feedback."""
        wanted = [file.planned[name] for file in self._files for name in names]
        return sorted({each.kind.name for each in wanted if each.method == "gptq"})

    def _takers(self, name: str, kind: str) -> list[int]:
        """The places of the files that hold a tensor in a type, with error feedback."""
        held = [file.planned[name] for file in self._files]
        return [index for index, each in enumerate(held) if each.method == "gptq" and each.kind.name == kind]

    def _remember(self, name: str, kind: str, facts: Facts) -> None:
        if "reason" in facts:
            say(f"{name} ({kind}): llama.cpp's own codes: {facts['reason']}")
        self._facts[name, kind] = facts

    def _remember_experts(self, name: str, kind: str, each: Sequence[Facts], quiet: Container[int]) -> None:
        facts = facts_of_experts(each)
        reasons = {number: why for number, why in facts.get("reasons", {}).items() if int(number) not in quiet}
        if reasons:
            say(f"{name} ({kind}): llama.cpp's own codes for {sentence_of_experts(reasons)}")
        self._facts[name, kind] = facts


def _put(ready: Ready, place: _Place, solved: Compensated) -> None:
    """Put a matrix in its place: experts follow each other in one tensor."""
    tensor = place.tensor
    if not tensor.experts:
        ready[tensor.name] = solved.data
        return
    if tensor.name not in ready:
        ready[tensor.name] = np.empty((len(tensor.experts), *solved.data.shape), np.uint8)
    ready[tensor.name][place.matrix] = solved.data
