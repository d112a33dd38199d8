"""The calibrate step: conversations in, token ids with classes and weights out, and an audit of what survived."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lf_export.calibration.audit import render_audit
from lf_export.calibration.build import CalibrationOptions, CalibrationSet, build
from lf_export.checkpoint.digests import folder_facts
from lf_export.checkpoint.lock import writing
from lf_export.checkpoint.staging import staging
from lf_export.progress import stage
from lf_export.provenance import manifest, write_manifest
from lf_export.runtimes.causal import load_tokenizer
from lf_export.steps.inputs import data_inputs
from lf_export.steps.sources import data_path, shown_path, suite_source

_SUITES = ("calls", "no-call")
"""The shipped suites: nothing that calibrates may be in them."""

_SHIPPED_SUITE = "shipped:suites/"


@dataclass(frozen=True)
class CalibrateOptions:
    """What to render and how; empty `calls` or `chat` mean the data that ships."""

    model: Path
    calls: tuple[str, ...] = ()
    chat: tuple[str, ...] = ()
    dialect: str = "chat-template"
    call_share: float = 0.5
    num_samples: int = 128
    max_seq_length: int = 2048
    seed: int = 0
    allow_dropped: float = 0.0
    weights: Mapping[str, float] = field(default_factory=dict)
    suites: tuple[str, ...] = ()
    """Suites, beside those that ship, of which nothing may calibrate."""
    allow_contaminated: tuple[str, ...] = ()
    """Functions, or whole suites by the names in `suites`, that may all the same."""
    out: Path | None = None
    overwrite: bool = False
    folder: Path | None = None
    """What relative names in `calls` and `chat` are relative to."""


def calibrate_model(options: CalibrateOptions) -> CalibrationSet:
    """Render, mix and audit; write the set to `options.out` where that is given.

    Raises:
        InputError: data that cannot be read, or call tokens that are lost.
    """
    with writing(*([options.out] if options.out else [])):
        return _calibrate(options)


def _calibrate(options: CalibrateOptions) -> CalibrationSet:
    tokenizer = load_tokenizer(options.model)
    found = build(
        CalibrationOptions(
            calls=tuple(data_path(name, options.folder) for name in options.calls),
            chat=tuple(data_path(name, options.folder) for name in options.chat),
            suites=tuple(dict.fromkeys((*_SUITES, *(_suite(name, options.folder) for name in options.suites)))),
            allow_contaminated=tuple(
                dict.fromkeys(each for name in options.allow_contaminated for each in _allowed(name, options))
            ),
            weights=options.weights,
            dialect=options.dialect,
            share=options.call_share,
            num_samples=options.num_samples,
            max_seq_length=options.max_seq_length,
            seed=options.seed,
            allow_dropped=options.allow_dropped,
        ),
        tokenizer,
    )
    # whoever reads an audit has other folders
    found = replace(found, audit=replace(found.audit, suites=tuple(map(shown_path, found.audit.suites))))
    if options.out is not None:
        with (
            stage("write calibration set", 1, "set") as advance,
            staging(options.out, overwrite=options.overwrite) as folder,
        ):
            found.save(folder)
            facts = manifest(
                "calibration",
                calibration=found.audit.to_json(),
                options=_manifest_options(options),
                inputs={"data": data_inputs(source_files(options))},
                files=folder_facts(folder),
            )
            write_manifest(folder, facts)
            advance()
    return found


def source_files(options: CalibrateOptions) -> list[Path]:
    """The files of the conversations, those that ship where none are named and the share asks for some."""
    calls = [data_path(name, options.folder) for name in options.calls or ("shipped:calls.jsonl",)]
    chat = [data_path(name, options.folder) for name in options.chat or ("shipped:chat.jsonl",)]
    return [*(calls if options.call_share > 0 else ()), *(chat if options.call_share < 1 else ())]


def _manifest_options(options: CalibrateOptions) -> dict[str, Any]:
    return {
        "dialect": options.dialect,
        "call_share": options.call_share,
        "num_samples": options.num_samples,
        "max_seq_length": options.max_seq_length,
        "seed": options.seed,
        "allow_dropped": options.allow_dropped,
        "weights": dict(options.weights),
    }


def _suite(name: str, folder: Path | None) -> str:
    """A suite as the audit names it: one that ships by its name, which is the same on every machine."""
    if name.startswith(_SHIPPED_SUITE):
        return name.removeprefix(_SHIPPED_SUITE).removesuffix(".jsonl")
    return suite_source(name, folder)


def _allowed(name: str, options: CalibrateOptions) -> tuple[str, ...]:
    """A name as it was given, and as the audit names the suite where it is one."""
    return (name, _suite(name, options.folder)) if name in options.suites else (name,)


def audit_text(calibration: CalibrationSet) -> tuple[str, dict[str, Any]]:
    """The audit for a person, and as JSON values."""
    return render_audit(calibration.audit), calibration.audit.to_json()
