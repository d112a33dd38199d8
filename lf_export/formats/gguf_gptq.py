"""GPTQ for GGUF files: the linears of each layer, once for each type that a file asks for, ready to be written."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lf_export.formats.base import significant
from lf_export.formats.gguf_arch import GgufTensor
from lf_export.formats.gguf_imatrix import Imatrix
from lf_export.formats.gguf_writer import GgufFile, interleave
from lf_export.formats.linears import circumstances
from lf_export.progress import say
from lf_export.quant.ggml import TYPES
from lf_export.quant.ggml_gptq import Compensated, Compensator
from lf_export.walk.view import LayerView

# The bytes of some tensors, by GGUF name.
Ready = dict[str, npt.NDArray[np.uint8]]


class GgufGptq:
    """Compensates the linears of one layer after the other for several files, which share what they agree on.

    Types whose codes are no numbers (the IQ2 and IQ3 families) are left to llama.cpp's quantizer.

    Args:
        tensors: where each of the checkpoint's tensors lies in the files, by its name in the checkpoint.
        files: what will be written.
        threads: how many pieces of a weight llama.cpp's quantizer works on at a time.
    """

    def __init__(self, tensors: Mapping[str, GgufTensor], files: Sequence[GgufFile], threads: int = 1) -> None:
        self._tensors, self._files, self._threads = tensors, files, threads
        self._facts: dict[tuple[str, str], dict[str, Any]] = {}

    def layer(self, view: LayerView, imatrix: Imatrix) -> list[Ready]:
        """The bytes of a layer's linears for each file."""
        ready: list[Ready] = [{} for _ in self._files]
        for group in view.groups:
            weights = {}
            for linear in group:
                tensor = self._tensors[f"{view.prefix}.{linear}.weight"]
                W = view.weights[f"{linear}.weight"]
                weights[tensor.name] = interleave(W, tensor.unit) if tensor.unit else W
            compensator = Compensator(view.moments[group[0]], view.heldout.get(group[0]), threads=self._threads)
            for kind in self._kinds(weights):
                wanted = {name: W for name, W in weights.items() if self._takers(name, kind)}
                importance = imatrix.importance(next(iter(wanted)))
                for name, solved in compensator.solve(wanted, TYPES[kind], importance).items():
                    self._remember(name, kind, solved)
                    for index in self._takers(name, kind):
                        ready[index][name] = solved.data
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
        if not linears:
            return {}
        return {
            "error": significant(fmean(facts["error"] for facts in linears.values())),
            "imatrix_error": significant(fmean(facts["imatrix_error"] for facts in linears.values())),
            "fallbacks": {name: facts["reason"] for name, facts in linears.items() if "reason" in facts},
            "linears": linears,
        }

    def _kinds(self, names: Mapping[str, torch.Tensor]) -> list[str]:
        """The types that the files ask for, of weights that get error feedback."""
        wanted = [file.planned[name] for file in self._files for name in names]
        return sorted({each.kind.name for each in wanted if each.method == "gptq"})

    def _takers(self, name: str, kind: str) -> list[int]:
        """The places of the files that hold a tensor in a type, with error feedback."""
        held = [file.planned[name] for file in self._files]
        return [index for index, each in enumerate(held) if each.method == "gptq" and each.kind.name == kind]

    def _remember(self, name: str, kind: str, solved: Compensated) -> None:
        if solved.reason:
            say(f"{name} ({kind}): llama.cpp's own codes: {solved.reason}")
        self._facts[name, kind] = {
            "type": kind,
            "method": solved.method,
            "error": significant(solved.error),
            "imatrix_error": significant(solved.imatrix_error),
            "judged_on": solved.judged_on,
            **circumstances(solved),
        }
