"""The one pass: calibration samples through the unquantized decoder, layer by layer, every visitor at each layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from lf_export.checkpoint.index import Checkpoint
from lf_export.errors import InputError
from lf_export.progress import stage
from lf_export.quant.moments import HeldOut, Moments, Pool
from lf_export.walk.batches import Batch, CalibrationData, Plan, plan_batches
from lf_export.walk.families import Experts, Family, family_of, num_layers
from lf_export.walk.hidden import HiddenStates
from lf_export.walk.journal import Journal, Standing
from lf_export.walk.kernels import no_kernel_cache
from lf_export.walk.response import LayerResponse
from lf_export.walk.taps import Taps
from lf_export.walk.view import LayerView, LayerVisitor
from lf_export.walk.weights import LayerWeights

__all__ = ["BATCH_TOKENS", "WalkFacts", "compute_dtype", "walk"]

BATCH_TOKENS = 1024
"""Tokens of a batch, padding included, where nothing else is asked."""

# Embedded tokens that one reading of the embedding gathers: bytes at least, and a share of all tokens.
_GATHERED = 64 << 20
_READINGS = 8


@dataclass(frozen=True)
class WalkFacts:
    """What a walk did.

    Attributes:
        layers: decoder layers visited.
        compute: in which dtype the layers ran, empty when none did.
        executions: how often a layer ran on a batch: layers × batches, however many visitors there are; 0 when
            none asked for moments. Those of an earlier run that this one went on from count.
        tokens: calibration tokens, held-out ones included.
        heldout_samples: samples that no moment has seen, by their place in the set.
    """

    layers: int
    compute: str
    executions: int
    tokens: int
    heldout_samples: tuple[int, ...]


def walk(
    checkpoint: Checkpoint,
    data: CalibrationData | None,
    visitors: Sequence[LayerVisitor],
    *,
    batch_tokens: int = BATCH_TOKENS,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    memory: int | None = None,
    journal: Journal | None = None,
) -> WalkFacts:
    """Show every layer of a checkpoint to every visitor, with the moments of its linears' inputs.

    One forward pass serves all visitors. In memory are one layer, the moments of its inputs, one batch, and the hidden
    states of all tokens where they fit `memory`: nothing grows with the number of layers.

    Args:
        checkpoint: of a family in `walk.families`.
        data: the calibration samples; may be None when no visitor needs moments.
        visitors: each is called once per layer, in the order given.
        batch_tokens: tokens of a batch, padding included.
        device: where the layers run.
        dtype: in which the layers compute, None for `compute_dtype`; moments are always summed in fp32.
        memory: bytes of hidden states that may be held; more lie in the journal's folder alone. None: any number.
        journal: notes each layer that is done. The walk goes on where the journal says that an earlier one stopped;
            the visitors must have been restored to that place.

    Raises:
        InputError: an unknown architecture, weights or activations with NaN or Inf (names the layer), samples that do
            not fit the vocabulary.
    """
    family = family_of(checkpoint.config)
    layers = num_layers(checkpoint.config)
    place = torch.device(device)
    dtype = dtype or compute_dtype(place)
    before = (journal.standing if journal else None) or Standing(0, 0, 0)
    plan: Plan | None = None
    if any(visitor.needs_moments for visitor in visitors):
        if data is None:
            raise InputError("calibration: no samples, and a format needs them")
        share = 1.0 if family.experts is None else family.experts.chosen / family.experts.count
        plan = plan_batches(data, batch_tokens, checkpoint.info(family.embedding).shape[0], share=share)
    compute = str(dtype).removeprefix("torch.") if plan else ""
    forward: _Forward | None = None
    if plan and before.layers < layers:
        forward = _Forward(checkpoint, family, plan, place, dtype, memory, journal)
    executions = before.executions
    with torch.no_grad(), no_kernel_cache(), stage("quantize", layers, "layer") as advance:
        if before.layers:
            advance(before.layers)
        for index in range(before.layers, layers):
            _visit(checkpoint, family, index, place, forward, visitors)
            executions += len(plan.batches) if plan else 0
            if journal:
                journal.commit(Standing(index + 1, forward.hidden.side if forward else 0, executions))
            advance(1, family.prefix(index))
    if plan is None:
        return WalkFacts(layers, "", 0, 0, ())
    return WalkFacts(layers, compute, executions, len(plan.ids), plan.heldout_samples)


def _visit(
    checkpoint: Checkpoint,
    family: Family,
    index: int,
    place: torch.device,
    forward: "_Forward | None",
    visitors: Sequence[LayerVisitor],
) -> None:
    """Run one layer and show it; when this returns, nothing of the layer is held, so that there are never two."""
    weights = LayerWeights(checkpoint, family.prefix(index), place)
    moments, heldout, response = forward.layer(index, weights) if forward else ({}, {}, None)
    groups = family.groups_at(index)
    pools = _pools(family.experts_at(index), moments, heldout)
    view = LayerView(index, family.prefix(index), weights, groups, moments, heldout, response, pools)
    for visitor in visitors:
        visitor.layer(view)


def _pools(experts: Experts | None, moments: Mapping[str, Moments], heldout: Mapping[str, HeldOut]) -> dict[str, Pool]:
    """What all experts of a layer saw together, for the linears that read the layer's own hidden states."""
    if experts is None or not moments:
        return {}
    groups = [group for group in experts.groups if len(group) > 1]
    pool = Pool([moments[group[0]] for group in groups], [heldout[group[0]] for group in groups], experts.chosen)
    return {name: pool for group in groups for name in group}


def compute_dtype(device: torch.device) -> torch.dtype:
    """bf16 where the processor multiplies it in hardware, fp32 elsewhere.

    Rounding activations to bf16 changes the moments less than the choice of the samples does: on SmolLM2-135M the
    held-out error of 4-bit layers rose by 0.3 %, and the pass took half the time.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    # the CPU kernels fall back to conversions, slower than fp32, where these instructions are missing
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32  # noqa: SLF001


class _Forward:
    """The hidden states of all tokens, and one layer at a time over them."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        family: Family,
        plan: Plan,
        device: torch.device,
        dtype: torch.dtype,
        memory: int | None,
        journal: Journal | None,
    ) -> None:
        # transformers takes seconds to import, and only a forward needs it
        from lf_export.walk.decoder import Decoder  # noqa: PLC0415

        self.plan = plan
        self._decoder = Decoder(checkpoint, family, device)
        self._dtype = dtype
        self._width = checkpoint.info(family.embedding).shape[1]
        before = journal.standing if journal else None
        self.hidden = HiddenStates(
            (len(plan.ids), self._width),
            journal.folder if journal else None,
            memory,
            side=before.side if before else 0,
            device=device,
        )
        if before:
            self.hidden.load()
        else:
            self._embed(memory)

    def layer(
        self, index: int, weights: Mapping[str, torch.Tensor]
    ) -> tuple[dict[str, Moments], dict[str, HeldOut], LayerResponse | None]:
        """Run all batches through layer `index`; returns moments and held-out rows by linear, and what it responds."""
        judged = self.plan.judged
        inputs = [self.hidden.read(sample.tokens).clone() for sample in judged]  # they may be overwritten
        response = LayerResponse(self._decoder, index, weights, judged, inputs) if judged else None
        module = self._decoder.build(index, weights, self._dtype)
        groups = self._decoder.family.groups_at(index)
        extremes: list[torch.Tensor] = []
        with Taps(module, groups, self._decoder.device) as taps:
            for batch in self.plan.batches:
                taps.begin(batch)
                states = self._through(module, index, batch)
                extremes += torch.aminmax(states)
                self.hidden.write(batch.tokens, states)
        self.hidden.turn()
        prefix = self._decoder.family.prefix(index)
        if not bool(torch.isfinite(torch.stack(extremes)).all()):
            raise InputError(
                f"{self._decoder.checkpoint.root}: {prefix}: its output has NaN or infinite activations",
                "the model overflows on the calibration data: check the merge and the scale of the adapter",
            )
        moments = {name: taps.moments[group[0]] for group in groups for name in group}
        heldout = {name: taps.heldout_rows(group[0]) for group in groups for name in group}
        return moments, heldout, response

    def _embed(self, memory: int | None) -> None:
        """Gather the embeddings a share at a time, so that they are not in memory twice."""
        share = self.hidden.nbytes // _READINGS
        gathered = max(share if memory is None else min(share, memory), _GATHERED)
        step, total = max(1, gathered // (4 * self._width)), len(self.plan.ids)
        for start in range(0, total, step):
            tokens = slice(start, min(start + step, total))
            self.hidden.write(tokens, self._decoder.embed(self.plan.ids[tokens]))
        self.hidden.turn()

    def _through(self, module: torch.nn.Module, index: int, batch: Batch) -> torch.Tensor:
        samples, longest = batch.shape
        rows = batch.rows.to(self._decoder.device)
        padded = torch.zeros(samples * longest, self._width, dtype=self._dtype, device=self._decoder.device)
        padded[rows] = self.hidden.read(batch.tokens).to(self._dtype)
        output = self._decoder.run(module, index, padded.view(samples, longest, self._width))
        return output.reshape(-1, self._width)[rows].float()
