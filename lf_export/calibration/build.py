"""From sources to a calibration set: render, tokenize, mix, audit; and the set as a folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lf_export.calibration.audit import Audit, audit_of, check_losses, check_overlap, digest_of_tokens
from lf_export.calibration.mixing import Candidate, mix
from lf_export.calibration.samples import Sample, load_samples
from lf_export.calibration.suites import load_suite
from lf_export.calibration.tokens import TokenClass, TokenizedSample, encode
from lf_export.errors import InputError, MissingError
from lf_export.functions.dialects import DIALECTS, Dialect, Piece, dialect_for
from lf_export.progress import stage
from lf_export.shipped import shipped

_FACTS = "calibration.json"
_ARRAYS = "tokens.npz"
_SCHEMA = 1
_MAX_PROBLEMS = 20


class CalibrationOptions(BaseModel):
    """What calibrates and how.

    Without `calls` or `chat` the shipped files serve. Without `num_samples` and `max_tokens` everything is taken that
    keeps the share.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    calls: tuple[Path, ...] = Field((), description="files of conversations with functions")
    chat: tuple[Path, ...] = Field((), description="files of conversations or plain text without functions")
    dialect: str = Field("chat-template", description="how the model was trained to see functions")
    share: Annotated[float, Field(ge=0, le=1)] = Field(0.5, description="the calls' share of the tokens")
    num_samples: Annotated[int, Field(ge=1)] | None = Field(None, description="at most so many samples")
    max_tokens: Annotated[int, Field(ge=1)] | None = Field(None, description="at most so many tokens in all")
    max_seq_length: Annotated[int, Field(ge=8)] = Field(2048, description="longer samples are dropped whole")
    seed: int = Field(0, description="what shuffles")
    weights: Mapping[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default_factory=dict, description="weight of a token class in the moments, 1 where it is not named"
    )
    suites: tuple[str, ...] = Field((), description="evaluation suites that must share nothing with the samples")
    allow_contaminated: tuple[str, ...] = Field((), description="functions, or whole suites, that may be shared")
    allow_dropped: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="fraction of call tokens to lose at most"
    )
    min_call_tokens: Annotated[int, Field(ge=0)] = Field(64, description="fewer tokens inside calls are an error")

    @field_validator("dialect")
    @classmethod
    def _known_dialect(cls, name: str) -> str:
        if name not in DIALECTS:
            raise ValueError(f"no dialect is named {name!r}, expected one of {', '.join(DIALECTS)}")
        return name

    @field_validator("weights")
    @classmethod
    def _known_classes(cls, weights: Mapping[str, float]) -> Mapping[str, float]:
        names = [kind.name.lower() for kind in TokenClass]
        if unknown := [name for name in weights if name not in names]:
            raise ValueError(f"no token class is named {', '.join(unknown)}, expected some of {', '.join(names)}")
        return weights

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if self.num_samples is not None and self.max_tokens is not None:
            raise ValueError("num_samples and max_tokens are both given, expected one of them")
        return self

    @property
    def class_weights(self) -> dict[TokenClass, float]:
        """The weight of every class."""
        return {kind: float(self.weights.get(kind.name.lower(), 1.0)) for kind in TokenClass}


@dataclass(frozen=True)
class CalibrationSet:
    """Tokenized samples, the weight of each token class in the moments, and the audit."""

    samples: tuple[TokenizedSample, ...]
    weights: Mapping[TokenClass, float]
    audit: Audit

    @property
    def digest(self) -> str:
        """The sha256 over token ids, classes and weights, in hexadecimal."""
        return self.audit.digest

    def token_weights(self, sample: TokenizedSample) -> npt.NDArray[np.float32]:
        """The weight of each token of a sample, [t]."""
        table = np.array([self.weights[kind] for kind in TokenClass], dtype=np.float32)
        return table[sample.classes]

    def save(self, folder: Path) -> None:
        """Write the set into an existing folder; equal sets give equal bytes."""
        arrays = {
            "ids": _joined([sample.ids for sample in self.samples], "<i4"),
            "classes": _joined([sample.classes for sample in self.samples], "<u1"),
            "lengths": np.array([len(sample) for sample in self.samples], dtype="<i8"),
        }
        with (folder / _ARRAYS).open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        facts = {
            "schema": _SCHEMA,
            "weights": {kind.name.lower(): self.weights[kind] for kind in TokenClass},
            "names": [sample.name for sample in self.samples],
            "audit": self.audit.to_json(),
        }
        text = json.dumps(facts, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        (folder / _FACTS).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "CalibrationSet":
        """The set that `save` wrote.

        Raises:
            MissingError: no calibration set in the folder.
            InputError: one that does not read or whose tokens are not those of its digest.
        """
        try:
            facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
            with np.load(folder / _ARRAYS, allow_pickle=False) as arrays:
                ids, classes, lengths = arrays["ids"], arrays["classes"], arrays["lengths"]
            samples = _split(facts["names"], ids, classes, lengths)
            weights = {kind: float(facts["weights"][kind.name.lower()]) for kind in TokenClass}
            audit = Audit.from_json(facts["audit"])
        except FileNotFoundError as error:
            raise MissingError(f"{folder}: no calibration set, there is no {Path(error.filename).name}") from error
        except InputError as error:
            raise InputError(f"{folder / _FACTS}: {error.message}") from error
        except Exception as error:  # a damaged zip or JSON fails in many ways
            raise InputError(f"{folder}: does not read as a calibration set: {error}") from error
        if digest_of_tokens(samples, weights) != audit.digest:
            raise InputError(f"{folder}: the tokens are not those of the digest in {_FACTS}")
        return cls(samples, weights, audit)


def build(options: CalibrationOptions, tokenizer: Any) -> CalibrationSet:
    """The calibration set of `options` for a model's Transformers tokenizer.

    Raises:
        InputError: mistakes in the sources, lost call tokens, too few of them, overlap with an evaluation suite.
        MissingError: a source that is not there.
    """
    dialect = dialect_for(options.dialect, tokenizer)
    samples = _sources(options)
    judged = {suite: load_suite(suite) for suite in options.suites if suite not in options.allow_contaminated}
    clean = check_overlap(samples, judged, options.allow_contaminated)
    candidates = _candidates(samples, dialect, tokenizer)
    mixed = mix(
        candidates,
        share=options.share,
        num_samples=options.num_samples,
        max_tokens=options.max_tokens,
        max_seq_length=options.max_seq_length,
        seed=options.seed,
    )
    audit = audit_of(
        mixed,
        samples,
        options.class_weights,
        call_tokens_offered=sum(candidate.tokens.call_tokens for candidate in candidates),
        dialect=dialect.name,
        seed=options.seed,
        max_seq_length=options.max_seq_length,
        suites=clean,
    )
    check_losses(
        audit,
        mixed.dropped,
        allow_dropped=options.allow_dropped,
        min_call_tokens=options.min_call_tokens if options.share > 0 else 0,
    )
    return CalibrationSet(tuple(candidate.tokens for candidate in mixed.taken), options.class_weights, audit)


def _sources(options: CalibrationOptions) -> list[Sample]:
    """The samples of every source that the share needs; all mistakes of all files at once."""
    paths: list[Path] = []
    if options.share > 0:
        paths += options.calls or (shipped("calibration", "calls.jsonl"),)
    if options.share < 1:
        paths += options.chat or (shipped("calibration", "chat.jsonl"),)
    problems: list[str] = []
    samples: dict[str, Sample] = {}
    for path in paths:
        try:
            for sample in load_samples(path):
                if sample.id in samples:
                    problems.append(f"{path}: the id {sample.id!r} is in another source too")
                samples[sample.id] = sample
        except InputError as error:
            problems.append(error.message)
    if problems:
        raise InputError.of(problems)
    return list(samples.values())


def _candidates(samples: Sequence[Sample], dialect: Dialect, tokenizer: Any) -> list[Candidate]:
    candidates: list[Candidate] = []
    problems: list[str] = []
    with stage("render calibration samples", len(samples), "samples") as advance:
        for sample in samples:
            try:
                candidates.append(_candidate(sample, dialect, tokenizer))
            except InputError as error:
                problems.append(f"sample {sample.id}: {error.message}")
            advance()
    if problems:
        raise InputError.of(problems[:_MAX_PROBLEMS])
    return candidates


def _candidate(sample: Sample, dialect: Dialect, tokenizer: Any) -> Candidate:
    if sample.kind == "text":
        tokens = encode([Piece(sample.text, "prose")], tokenizer, bos=dialect.bos, name=sample.id)
        return Candidate("chat", sample.category, tokens)
    pieces = dialect.render(sample.messages, sample.functions)
    tokens = encode(pieces, tokenizer, bos=dialect.bos, name=sample.id)
    return Candidate(sample.kind, sample.category, tokens)


def _joined(arrays: Sequence[np.ndarray[Any, Any]], dtype: str) -> np.ndarray[Any, Any]:
    joined: np.ndarray[Any, Any] = np.concatenate([np.zeros(0, dtype), *arrays])
    return joined.astype(dtype)


def _split(
    names: Sequence[str], ids: np.ndarray[Any, Any], classes: np.ndarray[Any, Any], lengths: np.ndarray[Any, Any]
) -> tuple[TokenizedSample, ...]:
    if not len(names) == len(lengths) or not len(ids) == len(classes) == lengths.sum():
        raise InputError("the lengths of the arrays do not agree")
    if len(classes) and classes.max() >= len(TokenClass):
        raise InputError("a token class that there is not")
    ends = np.cumsum(lengths)
    return tuple(
        TokenizedSample(name, ids[end - size : end].astype(np.int32), classes[end - size : end].astype(np.uint8))
        for name, end, size in zip(names, ends, lengths, strict=True)
    )
