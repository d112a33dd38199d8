"""What a walk over a decoder shows of one layer, and who may look at it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch

from lf_export.quant.moments import HeldOut, Moments, Pool

Response = Callable[[Mapping[str, torch.Tensor]], float]
"""Other weights of some linears of a layer in, how much its output changes out."""


@dataclass(frozen=True)
class LayerView:
    """One decoder layer of the unquantized model, and what its linears saw of the calibration data.

    Names are relative to `prefix`: a linear is `self_attn.q_proj`, its weight `self_attn.q_proj.weight`. A view is
    valid only during the visit: nothing of it may be kept or changed.

    Attributes:
        index: which layer, from 0.
        prefix: what precedes a relative name in the checkpoint, for example `model.layers.3`.
        weights: every tensor of the layer in fp32, by relative tensor name; linears are [out, in].
        groups: the linears that share an input, in the family's order.
        moments: for each linear, the moments of its input; linears of a group share one object. Empty when no
            visitor asked for moments.
        heldout: for each linear, input rows of samples that are *not* in `moments`. Empty likewise, and without rows
            when there was only one sample.
        response: how much the layer's output changes when some of its linears have other weights: relative linear
            name → W [out, in] in, the mean over held-out tokens of ‖y' − y‖² / ‖y‖² out, in fp32; tokens that predict
            one inside a function call where there are any, by their weights. Each call runs the layer over the
            held-out samples. None when no sample is held out or no visitor asked for moments.
        pools: for each linear of an expert whose input is the layer's, what all experts saw together. In a mixture of
            experts, `moments` and `heldout` of an expert's linears have only the tokens that were sent to it, which
            may be none; `moments[name].count` says how many.
    """

    index: int
    prefix: str
    weights: Mapping[str, torch.Tensor]
    groups: tuple[tuple[str, ...], ...]
    moments: Mapping[str, Moments]
    heldout: Mapping[str, HeldOut]
    response: Response | None = None
    pools: Mapping[str, Pool] = field(default_factory=dict)


class LayerVisitor(Protocol):
    """Takes its share of each layer of a walk.

    Attributes:
        needs_moments: whether calibration data has to pass through the layers for this visitor.
    """

    needs_moments: bool

    def layer(self, view: LayerView) -> None:
        """Look at one layer; called once per layer, in order."""
