"""The GGUF format: files for llama.cpp, one for each type, with one importance matrix from the calibration pass."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from lf_export.checkpoint.index import Checkpoint
from lf_export.errors import InputError
from lf_export.formats.base import ArtifactFacts, Format, FormatOptions, Snapshot
from lf_export.formats.experts import Starved
from lf_export.formats.gguf_arch import GgufTensor, model_shape, plan_tensors, window_notes
from lf_export.formats.gguf_gptq import GgufGptq, Ready
from lf_export.formats.gguf_imatrix import Imatrix
from lf_export.formats.gguf_imatrix_read import ImatrixFile, read_imatrix
from lf_export.formats.gguf_pace import rounding_seconds
from lf_export.formats.gguf_plan import Method, Overrides, Planned, plan_file
from lf_export.formats.gguf_starved import remedies, unseen_line, weigh
from lf_export.formats.gguf_tokenizer import read_tokenizer
from lf_export.formats.gguf_types import SCHEMES, GgufScheme
from lf_export.formats.gguf_writer import GgufFile, GgufIdentity, split_parts
from lf_export.formats.pace import Pace
from lf_export.progress import say
from lf_export.walk.view import LayerView

IMATRIX_NAME = "imatrix.gguf"

_BYTES_A_TOKEN = 72
"""Of a vocabulary that is not there yet; SmolLM2's tokenizer.json has 72 for each token."""


class GgufOptions(FormatOptions):
    """The options of a GGUF target.

    Attributes:
        types: the files to write, by llama.cpp's names; they share one importance matrix.
        method: `gptq`: rounding errors are fed back through the moments on the grids that llama.cpp's quantizer chooses
            with the importance matrix; `imatrix`: its own rounding; `rtn`: its own without any calibration.
        threads: how many blocks of rows are converted at a time; the bytes are the same for any number.
        name: the model's name in the files and their names; empty takes the checkpoint's folder.
        licence: SPDX identifier for the metadata; empty leaves it out.
        overrides: globs over names of tensors, llama.cpp's or the checkpoint's, and what deviates there: a ggml type, a
            method. For each key the last pattern that matches and names the key wins.
        split_max_size: the most bytes of tensors in a part; files that are larger are split as llama.cpp's gguf-split
            does.
        imatrix: a file with the importance matrix, instead of that of the calibration pass.
    """

    types: Annotated[tuple[str, ...], Field(min_length=1)] = ("Q4_K_M",)
    method: Method = "gptq"
    threads: Annotated[int, Field(ge=1, le=64)] = 1
    name: str = ""
    licence: str = ""
    overrides: Overrides = ()
    split_max_size: Annotated[int, Field(ge=1)] | None = None
    imatrix: Path | None = None

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
        self._checkpoint, self._out, self._options, self._audit = checkpoint, out, options, audit_digest
        self._plan = plan_tensors(checkpoint)
        planned = _planned(checkpoint, self._plan, options)
        self._given = _given(planned, options)
        if self._given is not None and (unseen := self._given.facts.get("experts_without_tokens")):
            say(unseen_line(str(options.imatrix), unseen))
        methods = {each.method for tensors in planned.values() for each in tensors}
        self.needs_moments = "gptq" in methods or ("imatrix" in methods and self._given is None)
        self._imatrix = self._given.imatrix if self._given else Imatrix()
        self._starved = Starved(checkpoint) if self.needs_moments else None
        self._tokenizer = read_tokenizer(checkpoint.root, _vocabulary_rows(self._plan))
        identity = GgufIdentity(options.name or checkpoint.root.resolve().name, options.licence)
        self._files = [
            GgufFile(
                out / f"{identity.name}-{scheme.name}.gguf",
                planned[scheme.name],
                scheme,
                checkpoint,
                self._tokenizer,
                identity,
                options.threads,
                part_bytes=options.split_max_size,
            )
            for scheme in options.schemes
        ]
        self._calibrated = [file for file in self._files if file.calibrated]
        self._gptq = GgufGptq(self._plan, self._calibrated, options.threads)

    def layer(self, view: LayerView) -> None:
        """Write one layer to every file, with the importance of its input channels."""
        tensors = [tensor for tensor in self._plan if tensor.layer == view.index]
        if self.needs_moments and self._given is None:
            weigh(self._imatrix, tensors, view)
        if self._starved is not None:
            self._starved.look(view)
        ready: list[Ready] = []
        if view.moments:
            ready = self._gptq.layer(view, self._imatrix, told=self._starved or ())
        self._write(ready, through_layer=view.index)
        if self._starved is not None:
            self._starved.tell(view, remedies(tensors, self._calibrated, view, given=self._given is not None))

    def snapshot(self) -> Snapshot:
        """How far each file is, what is known of the linears, and the importance of their inputs."""
        facts: ArtifactFacts = {"pending": [file.snapshot() for file in self._files], "linears": self._gptq.snapshot()}
        if self._starved is not None:
            facts["starved"] = self._starved.snapshot()
        return Snapshot(facts, {} if self._given else self._imatrix.snapshot())

    def restore(self, snapshot: Snapshot) -> None:
        """Go on after a snapshot."""
        for file, pending in zip(self._files, snapshot.facts["pending"], strict=True):
            file.restore(pending)
        self._gptq.restore(snapshot.facts["linears"])
        if self._starved is not None:
            self._starved.restore(snapshot.facts["starved"])
        if self._given is None:
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
            **(self._starved.facts() if self._starved is not None else {}),
        }
        if self._given is not None:
            facts["imatrix"] = self._given.facts
        elif self.needs_moments:
            self._imatrix.save(self._out / IMATRIX_NAME, f"lf-export calibration {self._audit}")
            facts["imatrix"] = {"file": IMATRIX_NAME, "entries": len(self._imatrix)}
        for file in self._files:
            facts["files"][file.path.name] = {
                "scheme": file.scheme.name,
                "bytes": sum(path.stat().st_size for path in file.paths),
                "tensors": file.types,
                "imatrix": file in self._calibrated,
                **_deviations(file),
                **self._gptq.facts(file),
            }
        return facts

    def _write(self, ready: Sequence[Ready], through_layer: int | None = None) -> None:
        quantized = {file.path: tensors for file, tensors in zip(self._calibrated, ready, strict=False)}
        for file in self._files:
            file.write(self._imatrix, through_layer=through_layer, ready=quantized.get(file.path))


def _vocabulary_rows(plan: list[GgufTensor]) -> int:
    return next(tensor.shape[0] for tensor in plan if tensor.name == "token_embd.weight")


def _planned(checkpoint: Checkpoint, plan: list[GgufTensor], options: GgufOptions) -> dict[str, list[Planned]]:
    """The tensors of each file, by the scheme's name."""
    return {
        scheme.name: plan_file(plan, scheme, checkpoint, options.method, options.overrides)
        for scheme in options.schemes
    }


def _given(planned: dict[str, list[Planned]], options: GgufOptions) -> ImatrixFile | None:
    """The importance matrix that the options name, checked against all that will ask it."""
    if options.imatrix is None:
        return None
    every = [each for tensors in planned.values() for each in tensors]
    asking = {each.tensor.name: each.tensor.shape[-1] for each in every if each.calibrated}
    if not asking and options.method == "rtn":
        raise InputError("imatrix: nothing takes an importance matrix, method is rtn", "take method imatrix or gptq")
    if not asking:
        return None
    experts = {each.tensor.name: len(each.tensor.experts) for each in every if each.tensor.experts}
    return read_imatrix(options.imatrix, asking, experts)


def _deviations(file: GgufFile) -> ArtifactFacts:
    """The parts of a file, and what overrides changed, for the manifest."""
    facts: ArtifactFacts = {}
    if len(file.paths) > 1:
        facts["parts"] = [path.name for path in file.paths]
    changed = [each for each in file.planned.values() if each.overridden]
    if changed:
        facts["overrides"] = {each.tensor.name: {"type": each.kind.name, "method": each.method} for each in changed}
    return facts


def _size(checkpoint: Checkpoint, options: GgufOptions) -> int:
    """Bytes on disk: the tensors exactly; the vocabulary, which leads each file, as large as `tokenizer.json`."""
    planned = _planned(checkpoint, plan_tensors(checkpoint), options)
    _given(planned, options)
    for tensors in planned.values():
        split_parts(tensors, options.split_max_size)
    try:
        vocabulary = (checkpoint.root / "tokenizer.json").stat().st_size
    except OSError as error:
        if checkpoint.planned:
            return _size_with(planned, _BYTES_A_TOKEN * int(checkpoint.config.get("vocab_size", 0)))
        raise InputError(f"{checkpoint.root}: no tokenizer.json, a GGUF needs the fast tokenizer's file") from error
    return _size_with(planned, vocabulary)


def _size_with(planned: dict[str, list[Planned]], vocabulary: int) -> int:
    return sum(vocabulary + sum(each.nbytes for each in tensors) for tensors in planned.values())


def _seconds(checkpoint: Checkpoint, options: GgufOptions, pace: Pace) -> float:
    planned = _planned(checkpoint, plan_tensors(checkpoint), options)
    return rounding_seconds(checkpoint, planned, options.threads, pace)


FORMAT = Format(
    name="gguf",
    summary="files for llama.cpp, Ollama and LM Studio",
    options=GgufOptions,
    open=GgufTarget,
    size=_size,
    seconds=_seconds,
    schemes={name: {"types": (name,)} for name in SCHEMES},
)
