"""Whether an artifact's weights are the model's: a sample is derived from the model again, or held against it.

What rounds to nearest, or is not quantized, is derived again and has to be equal to the bit. What calibration rounded
cannot be, without the walk: it has to lie as near to the model's weight as rounding of that kind does. With
`e = |Q - W|^2 / |W|^2` of the stored weight Q, and `e0` of the same scheme rounded to nearest, that is `e <= 8 e0`:
error feedback trades some distance for less error of outputs (at the most 2.9 times as much was seen, on tiny models),
while another layer's weight has an `e` of about 2. AWQ stores `diag(r) W diag(c)`; r and c are fitted first.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from lf_export.checkpoint.index import Checkpoint, open_checkpoint
from lf_export.checkpoint.packed import PackedTensor
from lf_export.checkpoint.regions import HEADER, Region, regions_of
from lf_export.errors import ExportError, InputError
from lf_export.formats.gguf import GgufOptions
from lf_export.formats.gguf_arch import gguf_library, plan_tensors
from lf_export.formats.gguf_plan import Planned, plan_file
from lf_export.formats.gguf_writer import tensor_data
from lf_export.formats.linears import linear_names
from lf_export.formats.onnx_graph import quantized_nodes, sources_of
from lf_export.provenance import MANIFEST_NAME
from lf_export.quant.ggml import TYPES, quantize
from lf_export.quant.gptq import dequantize
from lf_export.quant.grid import Scheme, find_grid, nearest
from lf_export.steps.dequantize import dequantized
from lf_export.steps.quantize import TargetPlan, format_options
from lf_export.steps.verify import Verified

_NEARER = 8.0
# What no kind of rounding comes to, and what another weight is far above.
_FAR = 0.9
_TINY = 1e-7
_FITS = 4
_FLOAT = TYPES["F32"]


@dataclass(frozen=True)
class _Check:
    """A tensor of an artifact: its name, the file that holds it, and what says what is wrong with it, if anything."""

    name: str
    file: str
    look: Callable[[], str | None]


def check_weights(result: Verified, model: Path | None, *, sample: int, seed: int, threads: int = 1) -> None:
    """Hold a sample of an artifact's tensors against the model that it was made of; notes what it finds in `result`.

    Args:
        result: the artifact, as its files were checked.
        model: the model's folder; None: it is not known, which is a problem.
        sample: how many tensors; all where there are fewer.
        seed: which.
        threads: to compute with.
    """
    torch.set_num_threads(threads)
    if model is None:
        result.problem("weights", "", "no model to hold them against: give --model, or a run folder")
        return
    try:
        checks = list(_KINDS[result.kind](result, open_checkpoint(model)))
    except (InputError, KeyError, TypeError) as error:
        said = error.message if isinstance(error, InputError) else f"the manifest does not say how: {error!r}"
        result.problem("weights", MANIFEST_NAME, f"cannot be derived again: {said}")
        return
    if not checks:
        result.notes.append("weights: none of this format can be held against the model")
        return
    chosen = Random(seed).sample(checks, min(sample, len(checks)))  # noqa: S311 - a sample, not a secret
    for check in chosen:
        try:
            wrong = check.look()
        except ExportError as error:
            wrong = error.message
        if wrong is not None:
            result.problem("weights", check.file, f"{check.name}: {wrong}")
    result.notes.append(f"weights: {len(chosen)} of {len(checks)} tensors held against {model}")


def _folder(result: Verified, model: Checkpoint) -> Iterator[_Check]:
    """The tensors of a GPTQ or AWQ folder."""
    artifact = open_checkpoint(result.path)
    stored = dequantized(artifact)
    scaled = result.kind == "awq"
    options = result.made["artifact"]["options"]
    for name, info in stored.tensors.items():
        file = artifact.relative(info.file)
        if isinstance(info, PackedTensor):
            own = (result.made["artifact"].get("linears") or {}).get(name.removesuffix(".weight"), {})
            scheme = Scheme(
                bits=int(own.get("bits") or _whole(options.get("bits", 4))),
                group_size=int(own.get("group_size") or options["group_size"]),
                sym=bool(options.get("sym", False)),
            )
            yield _Check(name, file, partial(_near_packed, info, model, scheme, scaled=scaled))
        elif not scaled or len(info.shape) > 1:  # AWQ's norms and biases took scales
            yield _Check(name, file, partial(_same_tensor, artifact, model, name))


def _whole(bits: float) -> int:
    """The bits of most linears of a mixed folder: the largest uniform width under its average."""
    return max(each for each in (2, 3, 4, 8) if each <= bits)


def _near_packed(info: PackedTensor, model: Checkpoint, scheme: Scheme, *, scaled: bool) -> str | None:
    W = model.read(info.name, torch.float32)
    if tuple(W.shape) != tuple(info.shape):
        return f"its shape is {list(info.shape)}, the model's is {list(W.shape)}"
    return _near(info.unpack()(0, info.shape[0]), W, partial(_rounded, scheme), scaled=scaled)


def _rounded(scheme: Scheme, W: torch.Tensor) -> torch.Tensor:
    """A weight rounded to nearest on the grids of a scheme."""
    Wt = W.t().contiguous()
    grid = find_grid(Wt, None, scheme)
    size = scheme.columns(Wt.shape[0])
    q = nearest(Wt, grid, scheme).float().view(-1, size, Wt.shape[1])
    return ((q - grid.zeros.unsqueeze(1)) * grid.scales.unsqueeze(1)).view(Wt.shape).t()


def _near(
    Q: torch.Tensor, W: torch.Tensor, rounded: Callable[[torch.Tensor], torch.Tensor], *, scaled: bool
) -> str | None:
    """What is wrong with the stored weight Q of W [out, in]."""
    if not torch.isfinite(Q).all():
        return "holds values that are not finite"
    if scaled:
        W = _fitted(Q, W)
    norm = float(W.square().sum())
    if norm == 0.0:
        return None if float(Q.square().sum()) <= _TINY else "the model's weight is zero, this one is not"
    e = float((Q - W).square().sum()) / norm
    e0 = float((rounded(W) - W).square().sum()) / norm
    allowed = min(max(_NEARER * e0, _TINY), _FAR)
    if e <= allowed:
        return None
    return f"is not the model's weight: it is {e:.3g} away, at the most {allowed:.3g} was expected"


def _fitted(Q: torch.Tensor, W: torch.Tensor) -> torch.Tensor:
    """diag(r) W diag(c) with the r and c that come nearest to Q, by turns."""
    for turn in range(_FITS):
        dim = turn % 2
        W = W * ((Q * W).sum(dim, keepdim=True) / W.square().sum(dim, keepdim=True).clamp(min=1e-30))
    return W


def _same_tensor(artifact: Checkpoint, model: Checkpoint, name: str) -> str | None:
    here, there = artifact.read(name), model.read(name)
    if here.dtype != there.dtype or here.shape != there.shape:
        return f"{here.dtype} {list(here.shape)}, the model has {there.dtype} {list(there.shape)}"
    same = torch.equal(here.view(torch.uint8), there.view(torch.uint8)) if here.ndim else torch.equal(here, there)
    return None if same else "is not the model's to the bit, and it is not quantized"


def _gguf(result: Verified, model: Checkpoint) -> Iterator[_Check]:
    """The tensors of every GGUF file of a folder."""
    recorded = {key: value for key, value in result.made["options"].items() if key != "imatrix"}
    options: GgufOptions = format_options(TargetPlan(result.path.name, "gguf", result.path, recorded), 1)
    plan = plan_tensors(model)
    for first, facts in result.made["artifact"]["files"].items():
        (scheme,) = (each for each in options.schemes if each.name == facts["scheme"])
        planned = {each.tensor.name: each for each in plan_file(plan, scheme, model, options.method, options.overrides)}
        for name in facts.get("parts") or [first]:
            for region in regions_of(result.path / name):
                if region.name in planned:
                    look = partial(_gguf_tensor, result.path / name, region, planned.pop(region.name))
                    yield _Check(region.name, name, look)
                elif region.name != HEADER:
                    yield _Check(region.name, name, lambda: "the model has no such tensor")
        for name in planned:
            yield _Check(name, first, lambda: "is missing")


def _gguf_tensor(path: Path, region: Region, planned: Planned) -> str | None:
    with path.open("rb") as file:
        file.seek(region.start)
        data = np.frombuffer(file.read(planned.nbytes), np.uint8)
    if data.nbytes != planned.nbytes:
        return f"{data.nbytes:,} bytes, {planned.nbytes:,} were expected"
    if not planned.calibrated:
        derived = np.concatenate([part.reshape(-1).view(np.uint8) for part in tensor_data(planned)])
        return None if np.array_equal(data, derived) else "is not what the model's weight gives, to the bit"
    library = gguf_library()
    kind = library.GGMLQuantizationType(planned.kind.id)
    tensor = planned.tensor
    width = tensor.shape[-1]
    stored = torch.from_numpy(library.quants.dequantize(data.reshape(-1, planned.kind.row_nbytes(width)), kind).copy())
    as_float = Planned(tensor, _FLOAT, None)
    W = np.concatenate([part.reshape(-1) for part in tensor_data(as_float)]).reshape(-1, width)

    def rounded(W: torch.Tensor) -> torch.Tensor:
        # some types are made with an importance matrix only: here one in which all columns count the same
        rows = quantize(np.ascontiguousarray(W.numpy()), planned.kind, np.ones(width, np.float32))
        return torch.from_numpy(library.quants.dequantize(rows, kind).copy())

    return _near(stored, torch.from_numpy(W), rounded, scaled=False)


def _onnx(result: Verified, model: Checkpoint) -> Iterator[_Check]:
    """The quantized linears of a graph; what is not quantized is not laid out as the model has it."""
    graph = result.path / "model.onnx"
    scaled = result.made["options"].get("method") == "awq"
    names = set(linear_names(model))
    for node in quantized_nodes(graph):
        if "lm_head" in node.name:
            continue
        sources = sources_of(node.name, names)

        def look(node: Any = node, sources: Sequence[tuple[str, str]] = sources) -> str | None:
            parts = [_part(model.read(f"{name}.weight", torch.float32), part) for name, part in sources]
            quantized = node.weight()
            group = quantized.q.shape[1] // quantized.scales.shape[1]
            scheme = Scheme(bits=quantized.bits, group_size=group, sym=False)
            Q, W = dequantize(quantized), torch.cat(parts)
            if Q.shape != W.shape:
                return f"its shape is {list(Q.shape)}, the model's is {list(W.shape)}"
            return _near(Q, W, partial(_rounded, scheme), scaled=scaled)

        yield _Check(", ".join(name for name, _ in sources), graph.name, look)


def _part(W: torch.Tensor, part: str) -> torch.Tensor:
    half = W.shape[0] // 2
    return {"all": W, "first half": W[:half], "second half": W[half:]}[part]


_KINDS: Mapping[str, Callable[[Verified, Checkpoint], Iterator[_Check]]] = {
    "gptq": _folder,
    "awq": _folder,
    "gguf": _gguf,
    "onnx": _onnx,
}
