"""A built graph is compared with the model that it was built of, or the step fails.

Three comparisons: the integers in the graph with those that were to be imported, bit for bit; the logits on a probe,
and 48 greedy tokens that the graph writes with its cache, with one plain forward pass over the same tokens; and the
token ids of the folder's tokenizer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lf_export.checkpoint.index import Checkpoint
from lf_export.errors import StepError
from lf_export.formats.linears import linear_names
from lf_export.formats.onnx_graph import Greedy, check_imported, lm_head, quantized_nodes, with_accuracy
from lf_export.quant.gptq import Quantized, dequantize
from lf_export.walk.logits import head_name, logits_of

GREEDY_TOKENS = 48

# The largest difference of a logit, as a share of the logits' standard deviation. Measured on tiny models of
# every family: fp32 3e-6, fp16 6e-3 at most; on SmolLM2-135M: fp32 2e-5. A window that was left out gave 5.5.
_TIGHT = {"fp32": 2e-3, "fp16": 0.1}

# With activations in int8, the mean KL divergence from the same weights with activations in fp32, nats. Measured on
# tiny models: 6e-5 and less; on SmolLM2-135M: 3.5e-3.
_LOOSE_KL = 0.1

_EXACT_LEVEL = 1
_ROWS = 8192
_PROBE = (
    'What is the weather in Paris on 2025-03-14? Call {"name": "get_weather", '
    '"arguments": {"city": "Paris", "days": 3}} if you have to, and answer in one sentence.'
)


@dataclass(frozen=True)
class Expected:
    """What the graph was built of.

    Attributes:
        checkpoint: the model.
        layer: a layer's prefix → its tensors in fp32, linears as they are stored.
        quantized: a linear's name → its integers; None where nothing is quantized.
        arithmetic: `fp32` or `fp16`, in which the graph computes.
        accuracy_level: of its quantized nodes.
    """

    checkpoint: Checkpoint
    layer: Callable[[str], Mapping[str, torch.Tensor]]
    quantized: Callable[[str], Quantized] | None
    arithmetic: str
    accuracy_level: int | None


def verify(graph: Path, expected: Expected, threads: int) -> dict[str, Any]:
    """Compare the graph with what it was built of; returns facts for the manifest.

    Raises:
        StepError: they differ, with what and by how much.
    """
    facts: dict[str, Any] = {"provider": "CPUExecutionProvider"}
    if expected.quantized is None:
        if node := next(quantized_nodes(graph), None):
            raise StepError(f"{graph.name}: {node.name} is quantized, which was not asked")
    else:
        names = list(linear_names(expected.checkpoint))
        facts["linears_bit_equal"] = check_imported(graph, expected.quantized, names)
    head = lm_head(graph)
    if head is not None:
        _check_head(expected.checkpoint, head)
    prompt = _check_tokens(graph.parent, expected.checkpoint)
    ours = _answered(graph, expected, prompt, threads)
    reference = logits_of(expected.checkpoint, [*prompt, *ours.tokens][:-1], layer=expected.layer, head=head)
    facts |= ours.compared(reference, _TIGHT[expected.arithmetic])
    if expected.accuracy_level not in {None, _EXACT_LEVEL}:
        facts["int8_activations"] = _check_rounded(graph, expected, prompt, threads)
    return facts


@dataclass(frozen=True)
class _Answer:
    prompt: int
    tokens: Sequence[int]
    logits: npt.NDArray[np.float32]

    def compared(self, reference: npt.NDArray[np.float32], tolerance: float) -> dict[str, Any]:
        """Facts on how near the logits are, and how many of the tokens are the reference's own choice."""
        if not np.isfinite(self.logits).all():
            raise StepError("the graph gives logits that are not finite")
        spread = float(reference.std())
        deviation = float(np.abs(self.logits - reference).max()) / spread
        written = reference[self.prompt - 1 :]
        chosen = written[np.arange(len(self.tokens)), list(self.tokens)]
        equal = int((written.argmax(axis=1) == list(self.tokens)).sum())
        # where the two best are nearer to each other than the tolerance, either may be chosen
        wrong = int((written.max(axis=1) - chosen > 2 * tolerance * spread).sum())
        if deviation > tolerance or wrong:
            raise StepError(
                f"the graph's logits differ from the model's by {deviation:.2g} standard deviations, expected at most "
                f"{tolerance:g}; {wrong} of {len(self.tokens)} greedy tokens are not the model's"
            )
        return {"deviation": float(f"{deviation:.2g}"), "greedy_tokens": len(self.tokens), "greedy_equal": equal}


def _answered(graph: Path, expected: Expected, prompt: Sequence[int], threads: int) -> _Answer:
    """What the graph answers with its activations unrounded."""
    exact = graph
    if expected.accuracy_level not in {None, _EXACT_LEVEL}:
        exact = with_accuracy(graph, _EXACT_LEVEL)
    try:
        return _greedy(exact, expected.checkpoint, prompt, threads)
    finally:
        if exact != graph:
            exact.unlink()


def _greedy(graph: Path, checkpoint: Checkpoint, prompt: Sequence[int], threads: int) -> _Answer:
    config = checkpoint.config
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    room = int(config.get("max_position_embeddings", 1 << 20)) - len(prompt)
    tokens, logits = Greedy(graph, threads).answer(prompt, min(GREEDY_TOKENS, room), int(width))
    return _Answer(len(prompt), tokens, logits)


def _check_rounded(graph: Path, expected: Expected, prompt: Sequence[int], threads: int) -> dict[str, Any]:
    """What rounding activations to int8 changes, on the graph's own answer."""
    rounded = _greedy(graph, expected.checkpoint, prompt, threads)
    ids = [*prompt, *rounded.tokens][:-1]
    exact = logits_of(expected.checkpoint, ids, layer=expected.layer, head=lm_head(graph))
    kl = float(_kl(exact, rounded.logits).mean())
    if not kl <= _LOOSE_KL:
        raise StepError(
            f"with activations in int8 the graph is {kl:.2g} nats from its own weights, expected {_LOOSE_KL}"
        )
    equal = int((exact[len(prompt) - 1 :].argmax(axis=1) == list(rounded.tokens)).sum())
    return {"kl": float(f"{kl:.2g}"), "greedy_equal": equal}


def _kl(p: npt.NDArray[np.float32], q: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """KL(p ‖ q) of each row of logits, nats."""
    log_p, log_q = (torch.log_softmax(torch.from_numpy(each).double(), dim=1).numpy() for each in (p, q))
    found: npt.NDArray[np.float64] = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
    return found


def _check_head(checkpoint: Checkpoint, head: Quantized) -> None:
    """The output layer is rounded by the builder: no weight may be further than one step from the model's."""
    name = head_name(checkpoint)
    worst = 0.0
    for start in range(0, head.q.shape[0], _ROWS):
        part = head.rows(start, min(start + _ROWS, head.q.shape[0]))
        W = checkpoint.read(name, rows=slice(start, start + part.q.shape[0]), dtype=torch.float32)
        steps = part.scales.float().abs().index_select(1, head.g_idx).clamp(min=1e-12)
        worst = max(worst, float(((W - dequantize(part)).abs() / steps).max()))
    if not worst <= 1.01:
        raise StepError(f"the graph's lm_head is {worst:.2g} steps from the model's, expected 1 at most")


def _check_tokens(folder: Path, checkpoint: Checkpoint) -> list[int]:
    """The probe's token ids, which the folder's tokenizer gives as the model's own does."""
    from tokenizers import Tokenizer  # noqa: PLC0415 - heavy
    from transformers import AutoTokenizer  # noqa: PLC0415 - heavy

    own = AutoTokenizer.from_pretrained(checkpoint.root, local_files_only=True, trust_remote_code=False)
    ids = list(own(_PROBE, add_special_tokens=False)["input_ids"])
    path = folder / "tokenizer.json"
    if path.is_file():
        theirs = Tokenizer.from_file(str(path)).encode(_PROBE, add_special_tokens=False).ids
        if theirs != ids:
            raise StepError(f"{path.name} gives other token ids than the model's own tokenizer")
    return ids
