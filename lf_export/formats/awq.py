"""The AWQ format: a Hugging Face folder of 4-bit weights whose inputs' scales are folded into what makes them."""

from pathlib import Path

import torch

from lf_export.checkpoint.carry import copy_companions
from lf_export.checkpoint.index import Checkpoint
from lf_export.checkpoint.staging import disk_errors
from lf_export.errors import StepError
from lf_export.formats.awq_layers import AwqLayers, fallbacks
from lf_export.formats.awq_plan import AwqOptions, entries_of, quantization_config, scheme_of
from lf_export.formats.base import ArtifactFacts, Format, Snapshot
from lf_export.formats.linears import group_shapes, linear_names, mean_of
from lf_export.formats.pace import Pace
from lf_export.formats.shards import Shards
from lf_export.quant.awq import EXPONENTS, SEARCH_ROWS
from lf_export.quant.awq_solve import quantize_awq
from lf_export.quant.moments import Moments
from lf_export.quant.pack_awq import pack_awq
from lf_export.version import __version__
from lf_export.walk.view import LayerView


class AwqTarget:
    """Writes an AWQ folder layer by layer; tensors that neither are quantized nor take a scale are copied as they are.

    Args:
        checkpoint: the unquantized model.
        out: an existing, empty folder.
        options: how to quantize.
        audit_digest: of the calibration data, for the config's `meta`.

    Raises:
        InputError: the group size or the layout does not fit a width; the architecture is not known.
    """

    needs_moments = True

    def __init__(self, checkpoint: Checkpoint, out: Path, options: AwqOptions, audit_digest: str) -> None:
        self._checkpoint = checkpoint
        self._out = out
        self._options = options
        self._scheme = scheme_of(checkpoint, options)
        self._layers = AwqLayers(checkpoint, self._scheme, scale_search=options.scale_search)
        self._meta = {"quantizer": [f"lf-export:{__version__}"], "calibration": audit_digest}
        self._written = {f"{name}.weight" for name in linear_names(checkpoint)}
        self._shards = Shards(out, list(entries_of(checkpoint, self._scheme)))

    def layer(self, view: LayerView) -> None:
        """Quantize and write a layer."""
        for group in self._layers.solve(view):
            for name, tensor in group.stored.items():
                self._shards.put(name, tensor)
                self._written.add(name)
            for module, quantized in group.quantized.items():
                for part, tensor in pack_awq(quantized).items():
                    self._shards.put(f"{module}.{part}", tensor)

    def snapshot(self) -> Snapshot:
        """Which tensors are written, and what is known of the linears."""
        return Snapshot({"linears": self._layers.facts, "written": self._shards.snapshot()})

    def restore(self, snapshot: Snapshot) -> None:
        """Go on after a snapshot."""
        self._layers.facts = dict(snapshot.facts["linears"])
        self._written |= set(snapshot.facts["written"])
        self._shards.restore(snapshot.facts["written"])

    def finish(self) -> ArtifactFacts:
        """Copy what was not written yet, write config and companions, and prove that calibration beat rounding.

        Raises:
            StepError: the layers' error is not below that of rounding to nearest, or the disk is full.
        """
        facts = self._facts()
        if not facts["error"] < facts["rtn_error"]:
            raise StepError(
                f"the weights' error is not below that of rounding to nearest ({facts['error']}, {facts['rtn_error']})"
                + "".join(f"; {name}: {reason}" for name, reason in list(facts["fallbacks"].items())[:3]),
                "give more calibration conversations, of the kind that the model will see",
            )
        for name, info in self._checkpoint.tensors.items():
            if name not in self._written:
                self._shards.copy(name, info)
        self._shards.finish()
        config = quantization_config(self._scheme, self._meta)
        with disk_errors(self._out):
            copy_companions(self._checkpoint.root, self._out, lambda base: {**base, "quantization_config": config})
        return facts

    def _facts(self) -> ArtifactFacts:
        linears = self._layers.facts
        return {
            "format": "awq",
            "scheme": f"W{self._scheme.bits}A16",
            "options": {
                "bits": self._scheme.bits,
                "group_size": self._scheme.group_size,
                "zero_point": True,
                "scale_search": self._options.scale_search,
                "clip_search": self._options.clip_search,
            },
            "error": mean_of(linears, "error"),
            "rtn_error": mean_of(linears, "rtn_error"),
            "fallbacks": fallbacks(linears),
            "linears": linears,
        }


def _size(checkpoint: Checkpoint, options: AwqOptions) -> int:
    return sum(entry.nbytes for entry in entries_of(checkpoint, scheme_of(checkpoint, options)))


def _seconds(checkpoint: Checkpoint, options: AwqOptions, pace: Pace) -> float:
    """The search looks at some rows of each input's linears for each exponent; then all rows are rounded once."""
    scheme = scheme_of(checkpoint, options)
    tried = (len(EXPONENTS) + 1) * SEARCH_ROWS if options.scale_search else 0
    groups = list(group_shapes(checkpoint))
    weights = sum(sum(out * n for out, n in group) + tried * group[0][1] for group in groups)

    def quantize(W: torch.Tensor, moments: Moments) -> object:
        return quantize_awq({"linear": W}, moments, None, scheme)

    products = 2.0 * tried * sum(group[0][1] ** 2 for group in groups)
    return pace.products(products) + pace.rounding(("awq", scheme), quantize, weights)


FORMAT = Format(
    name="awq",
    summary="a Hugging Face folder for Transformers, vLLM and SGLang, scaled by activation",
    options=AwqOptions,
    open=AwqTarget,
    size=_size,
    seconds=_seconds,
    schemes={"W4A16": {"bits": 4}},
)
