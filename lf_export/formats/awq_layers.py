"""AWQ of a checkpoint layer by layer, for every format that stores its integers: what a folder or a graph holds."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from lf_export.checkpoint.index import Checkpoint
from lf_export.checkpoint.reader import TORCH_DTYPES
from lf_export.formats.base import significant
from lf_export.progress import say
from lf_export.quant.awq_solve import AwqGroup, AwqLinear, quantize_awq
from lf_export.quant.fold import Fold
from lf_export.quant.gptq import Quantized
from lf_export.quant.grid import Scheme
from lf_export.walk.inputs import input_makers, made_by
from lf_export.walk.view import LayerView


@dataclass(frozen=True)
class SolvedGroup:
    """The linears that share an input, and what their scales leave of the norm or the bias that makes it.

    Attributes:
        quantized: a linear's name → its integers, of the weight as it is stored: scaled.
        stored: a tensor's name → the tensor in the checkpoint's dtype; empty where nothing is divided but rows that
            are quantized themselves.
    """

    quantized: dict[str, Quantized]
    stored: dict[str, torch.Tensor]


class AwqLayers:
    """Solves one layer after the other.

    Args:
        checkpoint: the unquantized model.
        scheme: of the integers.
        scale_search: whether inputs are scaled; else only ranges are clipped.
    """

    def __init__(self, checkpoint: Checkpoint, scheme: Scheme, *, scale_search: bool = True) -> None:
        self._checkpoint, self._scheme = checkpoint, scheme
        self._makers = input_makers(checkpoint.config) if scale_search else {}
        self.facts: dict[str, dict[str, Any]] = {}
        """What a manifest says of each linear that was solved, in the order of the model."""

    def solve(self, view: LayerView) -> Iterator[SolvedGroup]:
        """The groups of a layer, from its last to its first.

        A scale of down_proj's input divides the rows of up_proj, so that it has to be known when these are quantized.
        """
        divided: dict[str, torch.Tensor] = {}
        facts: dict[str, dict[str, Any]] = {}
        for linears in reversed(view.groups):
            first = linears[0]
            group = quantize_awq(
                {name: view.weights[f"{name}.weight"] for name in linears},
                view.moments[first],
                view.heldout.get(first),
                self._scheme,
                self._fold(view, first),
                {name: divided[name] for name in linears if name in divided},
            )
            stored: dict[str, torch.Tensor] = {}
            if group.divisors is not None:
                maker = self._makers[first]
                if group.stored is not None:
                    stored[f"{view.prefix}.{maker.module}.{'weight' if maker.norm else 'bias'}"] = group.stored
                if not maker.norm:
                    divided[maker.module] = group.divisors
            facts |= {f"{view.prefix}.{name}": _facts_of(group, group.linears[name]) for name in linears}
            yield SolvedGroup({f"{view.prefix}.{name}": group.linears[name].quantized for name in linears}, stored)
        for name in (f"{view.prefix}.{linear}" for linears in view.groups for linear in linears):
            self.facts[name] = facts[name]
            if "reason" in facts[name]:
                say(f"{name}: {facts[name]['reason']}")

    def _fold(self, view: LayerView, first: str) -> Fold | None:
        """What makes the input of the group whose first linear is `first`, None where that is not known."""
        maker = self._makers.get(first)
        if maker is None:
            return None
        weight = view.weights[f"{maker.module}.weight"]
        name = f"{maker.module}.{'weight' if maker.norm else 'bias'}"
        elements, width = weight.shape[0], view.weights[f"{first}.weight"].shape[1]
        index = made_by(maker, width, elements, self._checkpoint.config).to(weight.device)
        if name not in view.weights:
            return Fold(index, elements)
        dtype = TORCH_DTYPES[self._checkpoint.info(f"{view.prefix}.{name}").dtype]
        return Fold(index, elements, view.weights[name], dtype, maker.offset)


def fallbacks(facts: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The linears that are not what was asked for, and why."""
    return {name: str(each["reason"]) for name, each in facts.items() if "reason" in each}


def _facts_of(group: AwqGroup, linear: AwqLinear) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "method": linear.method,
        "error": significant(linear.error),
        "rtn_error": significant(linear.rtn_error),
        "judged_on": linear.judged_on,
    }
    if group.exponent is not None:
        facts["exponent"] = group.exponent
    if linear.reason:
        facts["reason"] = linear.reason
    return facts
