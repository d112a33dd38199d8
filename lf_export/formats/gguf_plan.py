"""What each tensor of a GGUF file becomes: its type by llama.cpp's recipe, what overrides change, how it is rounded."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, model_validator

from lf_export.checkpoint.index import Checkpoint
from lf_export.errors import InputError
from lf_export.formats.gguf_arch import GgufTensor, model_shape
from lf_export.formats.gguf_types import FALLBACK, GgufScheme, is_quantizable, tensor_type
from lf_export.quant.ggml import TYPES, GgmlType
from lf_export.quant.ggml_blocks import LAYOUTS

Method = Literal["gptq", "imatrix", "rtn"]

# What llama.cpp makes with an importance matrix only; for embedding and output, which have none, the second alone.
_NEED_IMATRIX = {"IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS"}
_NEED_IMATRIX_ANYWHERE = {"IQ2_XXS", "IQ2_XS"}


def _known_type(name: str | None) -> str | None:
    if name is not None and name not in TYPES:
        raise ValueError(f"unknown ggml type {name}; known are {', '.join(TYPES)}")
    return name


class TensorOverride(BaseModel):
    """What deviates for the tensors that a pattern matches; None: as it is elsewhere.

    Attributes:
        type: the tensors' ggml type.
        method: how they are rounded.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Annotated[str | None, AfterValidator(_known_type)] = None
    method: Method | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.type is None and self.method is None:
            raise ValueError("expected a type or a method")
        if self.type is not None and self.method is not None and not TYPES[self.type].quantized:
            raise ValueError(f"{self.type} is not rounded by a method")
        return self


def _pairs(value: Any) -> Any:
    return tuple(value.items()) if isinstance(value, Mapping) else value


Overrides = Annotated[tuple[tuple[str, TensorOverride], ...], BeforeValidator(_pairs)]
"""Pattern and what it changes, in order (a mapping is taken too): digests sort mappings, and order counts here."""


@dataclass(frozen=True)
class Planned:
    """A tensor of a file.

    Attributes:
        tensor: where it comes from.
        kind: its type in the file.
        method: how it is rounded, None where its type has no blocks. `gptq` and `imatrix` take an importance.
        overridden: whether a pattern changed it.
    """

    tensor: GgufTensor
    kind: GgmlType
    method: Method | None
    overridden: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes in the file, without padding."""
        rows = int(np.prod(self.tensor.shape[:-1], dtype=np.int64))
        return rows * self.kind.row_nbytes(self.tensor.shape[-1])

    @property
    def calibrated(self) -> bool:
        """Whether the importance of its input channels decides its bytes."""
        return self.method in {"gptq", "imatrix"}


def plan_file(
    plan: Sequence[GgufTensor], scheme: GgufScheme, checkpoint: Checkpoint, method: Method, overrides: Overrides = ()
) -> list[Planned]:
    """Each tensor of the plan as it will be in a file of `scheme`.

    A type that an override names is taken as it is: where llama.cpp would fall back to another, this is an error.

    Raises:
        InputError: a pattern that matches no tensor, a type whose blocks do not divide a width, one that llama.cpp
            makes with an importance matrix only.
    """
    model, deviations = model_shape(checkpoint), _deviations(plan, overrides)
    calibrated = method != "rtn" and scheme.imatrix
    planned, problems, hints = [], [], []
    for tensor in plan:
        own = deviations.get(tensor.name, {})
        if "type" in own:
            kind = TYPES[own["type"]]
        else:
            kind = tensor_type(tensor.name, tensor.shape, scheme, model, imatrix=calibrated)
        chosen = own.get("method") or (method if calibrated or ("type" in own and kind.name != "Q8_0") else "rtn")
        how = _method(tensor, kind, chosen)
        if "type" in own and (problem := _impossible(tensor, kind, how)):
            problems.append(problem)
            width = tensor.shape[-1]
            hints += [f"take {FALLBACK[kind.name]}"] if width % kind.block and width % 32 == 0 else []
        planned.append(Planned(tensor, kind, how, overridden=bool(own)))
    if problems:
        raise InputError.of(problems[:8], hints[0] if hints else None)
    return planned


def _method(tensor: GgufTensor, kind: GgmlType, wanted: Method) -> Method | None:
    """How a tensor is rounded: no calibration reaches embedding and output, no error feedback codes of vectors."""
    if not kind.quantized:
        return None
    if tensor.layer is None:
        return "rtn"
    return "imatrix" if wanted == "gptq" and kind.name not in LAYOUTS else wanted


def _impossible(tensor: GgufTensor, kind: GgmlType, method: Method | None) -> str | None:
    width = tensor.shape[-1]
    if width % kind.block:
        return f"overrides: {tensor.name}: a width of {width} is no multiple of {kind.block}, the block of {kind.name}"
    needing = _NEED_IMATRIX if tensor.layer is not None else _NEED_IMATRIX_ANYWHERE
    if method == "rtn" and kind.name in needing:
        return f"overrides: {tensor.name}: llama.cpp makes {kind.name} with an importance matrix only, here is none"
    return None


def _deviations(plan: Iterable[GgufTensor], overrides: Overrides) -> dict[str, dict[str, Any]]:
    """For each tensor the keys that deviate; the last pattern that matches wins, key by key."""
    matrices = {tensor.name: tensor for tensor in plan if is_quantizable(tensor.name, tensor.shape)}
    inner = {name: tensor for name, tensor in matrices.items() if tensor.layer is not None}
    found: dict[str, dict[str, Any]] = {}
    problems, hints = [], []
    for pattern, override in overrides:
        # a method is for what calibration reaches
        candidates = inner if override.type is None else matrices
        shares = {name: _share_named(tensor, pattern) for name, tensor in candidates.items()}
        matched = [name for name, share in shares.items() if share]
        for name in matched:
            found[name] = found.get(name, {}) | override.model_dump(exclude_none=True)
            if shares[name] < 1:
                count = len(candidates[name].experts)
                problems.append(
                    f"overrides: {pattern!r} matches {round(shares[name] * count)} of the {count} experts in {name}, "
                    "a tensor has one type"
                )
                hints.append(f"take {name.removesuffix('.weight')}")
        if not matched:
            example = next(iter(inner)).removesuffix(".weight")
            problems.append(
                f"overrides: {pattern!r} matches no matrix{' of a layer' * (override.type is None)}, "
                f"expected a glob over names such as {example}"
            )
            close = difflib.get_close_matches(pattern, _known_patterns(candidates.values()), n=3)
            hints += [f"did you mean {' or '.join(repr(name) for name in close)}?"] if close else []
    if problems:
        raise InputError.of(problems[:8], hints[0] if hints else None)
    return found


def _share_named(tensor: GgufTensor, pattern: str) -> float:
    """How much of a tensor a pattern names, by llama.cpp's name or the checkpoint's: all, nothing, or some experts."""
    if _is_named(tensor.name, pattern):
        return 1.0
    return sum(_is_named(source.name, pattern) for source in tensor.sources) / len(tensor.sources)


def _is_named(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name.removesuffix(".weight"), pattern)


def _known_patterns(matrices: Iterable[GgufTensor]) -> list[str]:
    """What a pattern may have been meant to be: a tensor, one in every layer, a layer."""
    known: dict[str, None] = {}
    for tensor in matrices:
        for full in (tensor.name, *(source.name for source in tensor.sources[:1])):
            name = full.removesuffix(".weight")
            parts = name.split(".")
            known |= dict.fromkeys([name, f"*.{parts[-1]}", f"{'.'.join(parts[: -1 if len(parts) == 3 else -2])}.*"])
    return list(known)
