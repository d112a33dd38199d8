"""What a built graph holds: its quantized linears, and what it answers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lf_export.errors import StepError
from lf_export.quant.gptq import Quantized
from lf_export.quant.nbits import unpack_nbits
from lf_export.quant.ort import open_graph

_DTYPES: dict[str, Any] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_LM_HEAD = "/lm_head/"


@dataclass(frozen=True)
class Node:
    """A `MatMulNBits` node: its name in the graph, and its weight, read when it is asked for."""

    name: str
    weight: Callable[[], Quantized]


def quantized_nodes(graph: Path) -> Iterator[Node]:
    """The `MatMulNBits` nodes of the graph at `graph`, in its order."""
    import onnx  # noqa: PLC0415 - an extra

    model = onnx.load(str(graph), load_external_data=False)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}

    def read(name: str) -> torch.Tensor:
        return torch.from_numpy(onnx.numpy_helper.to_array(tensors[name], str(graph.parent)).copy())

    for node in model.graph.node:
        if node.op_type != "MatMulNBits":
            continue
        about = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        names, bits, block = list(node.input), int(about["bits"]), int(about["block_size"])

        def weight(names: list[str] = names, bits: int = bits, block: int = block) -> Quantized:
            zeros = read(names[3]) if len(names) > 3 and names[3] else None
            return unpack_nbits(read(names[1]), read(names[2]), zeros, bits, block)

        yield Node(node.name, weight)


def lm_head(graph: Path) -> Quantized | None:
    """The output layer's integers, where the graph has it quantized."""
    return next((node.weight() for node in quantized_nodes(graph) if node.name.startswith(_LM_HEAD)), None)


def check_imported(graph: Path, stored: Callable[[str], Quantized], names: Sequence[str]) -> int:
    """Compare every quantized linear of the graph with what was to be imported, bit for bit.

    Args:
        graph: the built graph.
        stored: a linear's name in the checkpoint → its integers and grid.
        names: of all linears.

    Returns:
        How many of the checkpoint's linears the graph holds: all.

    Raises:
        StepError: a linear is missing, or one of its numbers differs.
    """
    known, missing = set(names), set(names)
    for node in quantized_nodes(graph):
        if node.name.startswith(_LM_HEAD):
            continue
        sources = sources_of(node.name, known)
        expected = _stacked([_cut(stored(name), part) for name, part in sources])
        if not _same(node.weight(), expected):
            raise StepError(
                f"{graph.name}: {node.name} does not hold the integers of {', '.join(n for n, _ in sources)}"
            )
        missing -= {name for name, _ in sources}
    if missing:
        raise StepError(f"{graph.name}: not quantized as asked: {', '.join(sorted(missing)[:5])}")
    return len(known)


def sources_of(node: str, names: set[str]) -> list[tuple[str, str]]:
    """Which linears a node's rows come from, and which part of each (`all`, `first half`, `second half`)."""
    # /model/layers.3/attn/qkv_proj/MatMulNBits
    parts = node.strip("/").split("/")
    if len(parts) != 5 or parts[2] not in {"attn", "mlp"}:
        raise StepError(f"the graph has a quantized node that no linear of the model explains: {node}")
    layer, kind = ".".join(parts[:2]), parts[3]
    prefix = f"{layer}.{'self_attn' if parts[2] == 'attn' else 'mlp'}"
    if f"{prefix}.{kind}" in names:
        return [(f"{prefix}.{kind}", "all")]
    if kind == "qkv_proj":
        found = [(f"{prefix}.{letter}_proj", "all") for letter in "qkv"]
    else:
        half = {"gate_proj": "first half", "up_proj": "second half"}.get(kind, "")
        found = [(f"{prefix}.gate_up_proj", half)]
    if not all(name in names and part for name, part in found):
        raise StepError(f"the graph has a quantized node that no linear of the model explains: {node}")
    return found


def _cut(weight: Quantized, part: str) -> Quantized:
    rows = weight.q.shape[0]
    match part:
        case "first half":
            return weight.rows(0, rows // 2)
        case "second half":
            return weight.rows(rows // 2, rows)
    return weight


def _stacked(weights: Sequence[Quantized]) -> Quantized:
    first = weights[0]
    return Quantized(
        q=torch.cat([weight.q for weight in weights]),
        scales=torch.cat([weight.scales for weight in weights]),
        zeros=torch.cat([weight.zeros for weight in weights]),
        g_idx=first.g_idx,
        bits=first.bits,
    )


def _same(found: Quantized, expected: Quantized) -> bool:
    """Equal integers, zeros and scales (fp16 values, whatever dtype holds them): so the weights are equal too."""
    return (
        found.bits == expected.bits
        and torch.equal(found.q, expected.q)
        and torch.equal(found.zeros, expected.zeros)
        and torch.equal(found.scales.double(), expected.scales.double())
        and torch.equal(found.g_idx, expected.g_idx.cpu())
    )


def with_accuracy(graph: Path, level: int) -> Path:
    """A graph beside `graph`, over the same weights, whose quantized nodes compute at another accuracy level."""
    import onnx  # noqa: PLC0415 - an extra

    model = onnx.load(str(graph), load_external_data=False)
    for node in model.graph.node:
        for about in node.attribute if node.op_type == "MatMulNBits" else ():
            if about.name == "accuracy_level":
                about.i = level
    twin = graph.with_name(f"accuracy-{level}.onnx")
    twin.write_bytes(model.SerializeToString())
    return twin


class Greedy:
    """A graph that answers one prompt with its cache, without any of the runtime's own machinery."""

    def __init__(self, graph: Path, threads: int) -> None:
        self._session = open_graph(graph, threads)
        inputs = self._session.get_inputs()
        self._pasts = [each for each in inputs if each.name.startswith("past_key_values.")]
        self._positions = any(each.name == "position_ids" for each in inputs)

    def answer(self, prompt: Sequence[int], count: int, width: int) -> tuple[list[int], npt.NDArray[np.float32]]:
        """`count` greedy tokens, and the logits before each of them and of all of the prompt but its first token.

        Args:
            prompt: token ids.
            count: how many tokens to write, whether or not one is an end token.
            width: of an attention head.

        Returns:
            The tokens, and logits [len(prompt) + count − 1, vocabulary] that predict `(prompt + tokens)[1:]`.
        """
        cache = {each.name: np.zeros((1, each.shape[1], 0, width), _DTYPES[each.type]) for each in self._pasts}
        ids, fed, rows = list(prompt), 0, []
        for _ in range(count):
            feed: dict[str, Any] = {"input_ids": np.array([ids[fed:]], np.int64), **cache}
            feed["attention_mask"] = np.ones((1, len(ids)), np.int64)
            if self._positions:
                feed["position_ids"] = np.arange(fed, len(ids))[None]
            fed = len(ids)
            names = [each.name for each in self._session.get_outputs()]
            try:
                outputs = dict(zip(names, self._session.run(None, feed), strict=True))
            except Exception as error:  # its exceptions have no public base class
                raise StepError(f"ONNX Runtime cannot run the graph: {str(error).splitlines()[0]}") from error
            rows.append(outputs["logits"][0].astype(np.float32))
            cache = {name: outputs[name.replace("past_key_values", "present")] for name in cache}
            ids.append(int(rows[-1][-1].argmax()))
        return ids[len(prompt) :], np.concatenate(rows)
