"""The GGUF format: files for llama.cpp, one for each type, with one importance matrix from the calibration pass."""

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, field_validator, model_validator

from lf_export.checkpoint.index import Checkpoint
from lf_export.errors import InputError
from lf_export.formats.base import ArtifactFacts, Format, FormatOptions, Snapshot
from lf_export.formats.gguf_arch import GgufTensor, model_shape, plan_tensors, window_notes
from lf_export.formats.gguf_gptq import GgufGptq, Ready
from lf_export.formats.gguf_imatrix import Imatrix
from lf_export.formats.gguf_tokenizer import read_tokenizer
from lf_export.formats.gguf_types import SCHEMES, GgufScheme
from lf_export.formats.gguf_writer import GgufFile, GgufIdentity, planned_types, tensor_nbytes
from lf_export.formats.linears import group_shapes
from lf_export.formats.pace import Pace, feedback_operations
from lf_export.quant.ggml import GgmlType, quantize
from lf_export.quant.ggml_blocks import LAYOUTS
from lf_export.quant.ggml_gptq import Compensator
from lf_export.quant.moments import Moments
from lf_export.walk.view import LayerView

IMATRIX_NAME = "imatrix.gguf"


class GgufOptions(FormatOptions):
    """The options of a GGUF target.

    Attributes:
        types: the files to write, by llama.cpp's names; they share one importance matrix.
        method: `gptq`: rounding errors are fed back through the moments on the grids that llama.cpp's quantizer chooses
            with the importance matrix; `imatrix`: its own rounding; `rtn`: its own without any calibration.
        threads: how many blocks of rows are converted at a time; the bytes are the same for any number.
        name: the model's name in the files and their names; empty takes the checkpoint's folder.
        licence: SPDX identifier for the metadata; empty leaves it out.
    """

    types: Annotated[tuple[str, ...], Field(min_length=1)] = ("Q4_K_M",)
    method: Literal["gptq", "imatrix", "rtn"] = "gptq"
    threads: Annotated[int, Field(ge=1, le=64)] = 1
    name: str = ""
    licence: str = ""

    @field_validator("types")
    @classmethod
    def _known(cls, types: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in types if name not in SCHEMES]
        if unknown:
            raise ValueError(f"unknown GGUF types {', '.join(unknown)}; known are {', '.join(SCHEMES)}")
        if len(set(types)) != len(types):
            raise ValueError("a GGUF type is named twice")
        return types

    @model_validator(mode="after")
    def _possible(self) -> Self:
        needing = [name for name in self.types if SCHEMES[name].needs_imatrix]
        if self.method == "rtn" and needing:
            raise ValueError(f"llama.cpp makes {', '.join(needing)} with an importance matrix only, method is rtn")
        return self

    def calibrated(self, scheme: GgufScheme) -> bool:
        """Whether a file of `scheme` is made with the importance matrix."""
        return self.method != "rtn" and scheme.imatrix

    @property
    def schemes(self) -> list[GgufScheme]:
        """The file types to write."""
        return [SCHEMES[name] for name in self.types]


class GgufTarget:
    """Writes every file layer by layer as the walk goes; without a walk `finish` writes them whole.

    Args:
        checkpoint: the model.
        out: an existing folder for the files.
        options: what to write.
        audit_digest: which calibration the importance matrix is from.

    Raises:
        InputError: the architecture, a tensor or the tokenizer has no place in a GGUF.
        MissingError: the `gguf` or `xllamacpp` package is not installed.
    """

    def __init__(self, checkpoint: Checkpoint, out: Path, options: GgufOptions, audit_digest: str) -> None:
        self.needs_moments = any(options.calibrated(scheme) for scheme in options.schemes)
        self._checkpoint, self._out, self._options, self._audit = checkpoint, out, options, audit_digest
        self._plan = plan_tensors(checkpoint)
        self._tensors = {tensor.source.name: tensor for tensor in self._plan if tensor.source is not None}
        self._imatrix = Imatrix()
        self._tokenizer = read_tokenizer(checkpoint.root, _vocabulary_rows(self._plan))
        identity = GgufIdentity(options.name or checkpoint.root.resolve().name, options.licence)
        self._files = [
            GgufFile(
                out / f"{identity.name}-{scheme.name}.gguf",
                self._plan,
                scheme,
                checkpoint,
                self._tokenizer,
                identity,
                options.threads,
                imatrix=options.calibrated(scheme),
            )
            for scheme in options.schemes
        ]
        self._calibrated = [file for file in self._files if options.calibrated(file.scheme)]
        self._gptq = GgufGptq(self._tensors, self._calibrated, options.threads)

    def layer(self, view: LayerView) -> None:
        """Write one layer to every file, with the importance of its input channels."""
        if self.needs_moments:
            for linear, moments in view.moments.items():
                self._imatrix.add(self._tensors[f"{view.prefix}.{linear}.weight"].name, moments)
        ready: list[Ready] = []
        if self._options.method == "gptq" and self._calibrated:
            ready = self._gptq.layer(view, self._imatrix)
        self._write(ready, through_layer=view.index)

    def snapshot(self) -> Snapshot:
        """How far each file is, what is known of the linears, and the importance of their inputs."""
        facts = {"pending": [file.snapshot() for file in self._files], "linears": self._gptq.snapshot()}
        return Snapshot(facts, self._imatrix.snapshot())

    def restore(self, snapshot: Snapshot) -> None:
        """Go on after a snapshot."""
        for file, pending in zip(self._files, snapshot.facts["pending"], strict=True):
            file.restore(pending)
        self._gptq.restore(snapshot.facts["linears"])
        self._imatrix.restore(snapshot.arrays)

    def finish(self) -> ArtifactFacts:
        """Write what follows the layers and the importance matrix; returns facts for the manifest."""
        self._write([])
        facts: ArtifactFacts = {
            "architecture": model_shape(self._checkpoint).architecture,
            "tokenizer": {"model": self._tokenizer.model, "pre": self._tokenizer.pre},
            "method": self._options.method,
            "notes": [*self._tokenizer.notes, *window_notes(self._checkpoint.config)],
            "files": {},
        }
        if self.needs_moments:
            self._imatrix.save(self._out / IMATRIX_NAME, f"lf-export calibration {self._audit}")
            facts["imatrix"] = {"file": IMATRIX_NAME, "entries": len(self._imatrix)}
        for file in self._files:
            facts["files"][file.path.name] = {
                "scheme": file.scheme.name,
                "bytes": file.path.stat().st_size,
                "tensors": file.types,
                "imatrix": file in self._calibrated,
                **self._gptq.facts(file),
            }
        return facts

    def _write(self, ready: Sequence[Ready], through_layer: int | None = None) -> None:
        quantized = {file.path: tensors for file, tensors in zip(self._calibrated, ready, strict=False)}
        for file in self._files:
            imatrix = self._imatrix if file in self._calibrated else None
            file.write(imatrix, through_layer=through_layer, ready=quantized.get(file.path))


def _vocabulary_rows(plan: list[GgufTensor]) -> int:
    return next(tensor.shape[0] for tensor in plan if tensor.name == "token_embd.weight")


def _size(checkpoint: Checkpoint, options: GgufOptions) -> int:
    """Bytes on disk: the tensors exactly; the vocabulary, which leads each file, as large as `tokenizer.json`."""
    plan = plan_tensors(checkpoint)
    try:
        vocabulary = (checkpoint.root / "tokenizer.json").stat().st_size
    except OSError as error:
        raise InputError(f"{checkpoint.root}: no tokenizer.json, a GGUF needs the fast tokenizer's file") from error
    total = 0
    for scheme in options.schemes:
        total += vocabulary + sum(
            tensor_nbytes(*pair) for pair in planned_types(plan, scheme, checkpoint, imatrix=options.calibrated(scheme))
        )
    return total


def _seconds(checkpoint: Checkpoint, options: GgufOptions, pace: Pace) -> float:
    """Each file is rounded by itself; the factors of error feedback are made once for all of them."""
    plan = plan_tensors(checkpoint)
    total, rounds = 0.0, 0
    for scheme in options.schemes:
        imatrix = options.calibrated(scheme)
        counts: dict[tuple[GgmlType, bool], int] = {}
        for tensor, kind in planned_types(plan, scheme, checkpoint, imatrix=imatrix):
            key = kind, options.method == "gptq" and imatrix and tensor.layer is not None and kind.name in LAYOUTS
            counts[key] = counts.get(key, 0) + prod(tensor.shape)
        total += sum(_rounding(kind, fed_back, options, pace, count) for (kind, fed_back), count in counts.items())
        rounds += any(fed_back for _, fed_back in counts)
    return total + (pace.products(feedback_operations(group_shapes(checkpoint), rounds)) if rounds else 0.0)


def _rounding(kind: GgmlType, fed_back: bool, options: GgufOptions, pace: Pace, weights: int) -> float:
    if not kind.quantized:
        return 0.0

    def quantize_one(W: torch.Tensor, moments: Moments) -> object:
        importance = moments.H.diagonal().numpy() if options.method != "rtn" else None
        if fed_back:
            return Compensator(moments, None, threads=options.threads).solve({"linear": W}, kind, importance)
        return quantize(W.numpy(), kind, importance, options.threads)

    return pace.rounding(("gguf", kind.name, fed_back, options.method), quantize_one, weights)


FORMAT = Format(
    name="gguf",
    summary="files for llama.cpp, Ollama and LM Studio",
    options=GgufOptions,
    open=GgufTarget,
    size=_size,
    seconds=_seconds,
    schemes={name: {"types": (name,)} for name in SCHEMES},
)
