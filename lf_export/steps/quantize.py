"""The quantize step: one walk over the model and the calibration data, every target takes its share."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lf_export.calibration.build import CalibrationSet
from lf_export.checkpoint.carry import copy_licences
from lf_export.checkpoint.digests import folder_facts
from lf_export.checkpoint.index import Checkpoint, open_checkpoint
from lf_export.checkpoint.lock import writing
from lf_export.checkpoint.staging import staging
from lf_export.errors import InputError
from lf_export.formats import FORMATS
from lf_export.formats.base import ArtifactFacts, Target
from lf_export.provenance import digest_of, machine, manifest, read_manifest, versions, write_manifest
from lf_export.report.card import CARD_NAME, artifact_card
from lf_export.steps import cards
from lf_export.steps.calibrate import CalibrateOptions, calibrate_model, source_files
from lf_export.steps.disk import check_disk
from lf_export.steps.inputs import calibration_inputs, data_inputs, model_inputs
from lf_export.steps.journal import FOLDER, SCHEMA, RunJournal, interruptible
from lf_export.steps.modelfile import write_modelfile
from lf_export.steps.record import fingerprint
from lf_export.walk.budget import default_budget, parse_size
from lf_export.walk.families import num_layers
from lf_export.walk.stream import BATCH_TOKENS, compute_dtype, walk

# Options that name a file: its content counts, and its name alone is said to those who have other folders.
_FILES = ("imatrix",)
# What a source's manifest says of itself alone; its files are among the artifact's inputs.
_OF_THE_FOLDER = frozenset({"machine", "versions", "files", "digest", "schema"})


@dataclass(frozen=True)
class TargetPlan:
    """One artifact to make: its name, its format's name, that format's options, its folder."""

    name: str
    format: str
    out: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    model_name: str = ""
    """What the model is called in files; the checkpoint's folder where it is empty."""


def targets_from_names(
    names: Sequence[str], out: Path, *, gguf: Mapping[str, Any] | None = None, **gptq: Any
) -> list[TargetPlan]:
    """Targets from `--format` values such as `gptq`, `gptq:4.25`, `awq`, `gguf:Q4_K_M`, `onnx:int4`, `onnx:fp16-cuda`.

    Args:
        names: what `--format` was given.
        out: the folder of a single target, or of the folders of several.
        gguf: options of each GGUF target, as in a recipe.
        gptq: options of each GPTQ target, as in a recipe; AWQ takes the group size.

    Raises:
        InputError: a format or a scheme that is not known, or one that is named twice.
    """
    plans: dict[str, TargetPlan] = {}
    for name in names:
        kind, _, scheme = name.partition(":")
        if kind not in FORMATS:
            raise InputError(f"no format is named {kind!r}, expected one of: {', '.join(FORMATS)}")
        options: dict[str, Any] = {}
        if kind == "gptq":
            options = {"bits": _bits(name, scheme or "4"), **gptq}
            label = f"gptq-{options['bits']:g}bit"
        elif kind == "awq":
            if scheme not in {"", "4"}:
                raise InputError(f"{name}: awq is written with 4 bits only, expected awq or awq:4")
            options = {"group_size": gptq["group_size"]} if "group_size" in gptq else {}
            label = "awq-4bit"
        elif kind == "onnx":
            precision, _, provider = (scheme or "int4").partition("-")
            options = {"precision": precision, "provider": provider or "cpu"}
            label = f"onnx-{precision}" + (f"-{provider}" if provider else "")
        else:
            options = {"type": scheme or "Q4_K_M", "method": "gptq", **(gguf or {})}
            label = f"{kind}-{options['type']}".lower()
        if label in plans:
            raise InputError(f"--format {name}: named twice")
        plans[label] = TargetPlan(label, kind, out if len(names) == 1 else out / label, options)
    return list(plans.values())


def _bits(name: str, text: str) -> int | float:
    try:
        bits = float(text)
    except ValueError:
        bits = float("nan")
    if not isfinite(bits):
        raise InputError(f"{name}: expected a number of bits after gptq:, such as gptq:4 or gptq:4.25")
    return int(bits) if bits.is_integer() else bits


def format_options(plan: TargetPlan, threads: int) -> Any:
    """The options of the plan's format, typed.

    Raises:
        InputError: options that the format does not have or does not admit.
    """
    kind = FORMATS[plan.format]
    options = dict(plan.options)
    if plan.format == "gguf":
        size = options.pop("split_max_size", None)
        options |= {
            "types": (options.pop("type"),),
            "threads": threads,
            "name": plan.model_name,
            "split_max_size": size and parse_size(size),
        }
    elif plan.format == "onnx":
        options |= {"threads": threads}
    try:
        return kind.options.model_validate(options)
    except ValidationError as error:
        problems = [f"{plan.name}: {'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        raise InputError.of(problems) from error


def files_of(plan: TargetPlan) -> list[Any]:
    """What identifies the files that the plan's options name, such as an importance matrix."""
    return [fingerprint(Path(plan.options[key])) for key in _FILES if plan.options.get(key)]


def quantize_model(
    model: Path,
    targets: Sequence[TargetPlan],
    *,
    calibration: Path | None = None,
    dialect: str = "chat-template",
    num_samples: int = 128,
    seed: int = 0,
    overwrite: bool = False,
    threads: int = 1,
    memory: int | None = None,
) -> dict[str, Any]:
    """Quantize the model in `model` to every target in one pass; returns each artifact's manifest by path.

    `memory` is for the whole step, in bytes; None takes a share of what is available for the activations.

    Raises:
        InputError: a model, options or data that cannot be used, or too little memory.
        StepError: an artifact did not prove itself, cannot be written, or does not fit the disk.
    """
    from lf_export.steps import estimate  # noqa: PLC0415 - it counts what is planned here

    checkpoint = open_checkpoint(model)
    check_targets(checkpoint, targets)
    check_disk({target.out: estimate.target_disk(checkpoint, target) for target in targets})
    if memory is not None:
        memory = estimate.activations_within(memory, checkpoint, targets)
    data: CalibrationSet
    with writing(*[target.out for target in targets]):
        if calibration is not None:
            data = CalibrationSet.load(calibration)
            read = calibration_inputs(calibration)
        else:
            wanted = CalibrateOptions(model, dialect=dialect, num_samples=num_samples, seed=seed)
            data, read = calibrate_model(wanted), data_inputs(source_files(wanted))
        made = quantize_targets(
            checkpoint, targets, data, calibration_files=read, overwrite=overwrite, threads=threads, memory=memory
        )
    return {"artifacts": made}


def check_targets(checkpoint: Checkpoint, targets: Sequence[TargetPlan]) -> int:
    """The bytes that all targets will take on disk.

    Raises:
        InputError: what the options and the checkpoint do not admit together, all targets at once.
    """
    total, problems, hints = 0, [], []
    for target in targets:
        kind = FORMATS[target.format]
        try:
            total += kind.size(checkpoint, format_options(target, 1))
        except InputError as error:
            problems += [f"{target.name}: {line}" for line in error.message.splitlines()]
            hints += [error.hint] if error.hint else []
    if problems:
        raise InputError.of(problems, hints[0] if hints else None)
    return total


def quantize_targets(
    checkpoint: Checkpoint,
    targets: Sequence[TargetPlan],
    calibration: CalibrationSet,
    *,
    calibration_files: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    threads: int = 1,
    memory: int | None = None,
) -> dict[str, Any]:
    """One walk for every target; each artifact appears under its name when all are finished.

    Where a run of the same inputs and options was killed or interrupted, this one goes on at the layer where it was.

    Args:
        checkpoint: the unquantized model.
        targets: what to make.
        calibration: the samples.
        calibration_files: the digests of the files that they are from (`steps.inputs`), for the manifests.
        overwrite: replace artifacts that exist.
        threads: to compute with.
        memory: bytes of activations that may be held, more lie on disk alone; None for a share of what is available.

    Returns:
        Each artifact's manifest, by the path of its folder.
    """
    import torch  # noqa: PLC0415 - its threads are set here

    torch.set_num_threads(threads)
    journal = RunJournal(_identity(checkpoint, targets, calibration, threads), num_layers(checkpoint.config))
    with ExitStack() as stack:
        stack.enter_context(interruptible())
        stack.enter_context(writing(*[plan.out for plan in targets]))
        folders = [
            stack.enter_context(staging(plan.out, overwrite=overwrite, adopt=True, keep=journal.keeps))
            for plan in targets
        ]
        try:
            journal.adopt(folders)
            _fill(checkpoint, list(zip(targets, folders, strict=True)), calibration, journal, threads, memory)
            inputs = {"model": model_inputs(checkpoint, threads), "calibration": dict(calibration_files or {}) or None}
            made = {
                str(plan.out): _complete(checkpoint, plan, folder, facts or {}, calibration, inputs, threads)
                for plan, folder, facts in zip(targets, folders, journal.facts, strict=True)
            }
        except KeyboardInterrupt:
            journal.say_interrupted()
            raise
        journal.close()
    return made


def _named_files(plan: TargetPlan) -> dict[str, Any]:
    """The digests of the files that the plan's options name."""
    return {key: data_inputs([Path(plan.options[key])]) for key in _FILES if plan.options.get(key)}


def _identity(checkpoint: Checkpoint, targets: Sequence[TargetPlan], calibration: CalibrationSet, threads: int) -> str:
    """The digest of all that decides the artifacts' bytes, by which a run knows what another has left."""
    import torch  # noqa: PLC0415 - heavy

    return digest_of(
        {
            "schema": SCHEMA,
            "versions": versions(),
            "processor": machine()["processor"],
            "threads": threads,
            "compute": str(compute_dtype(torch.device("cpu"))),
            "batch_tokens": BATCH_TOKENS,
            "config": dict(checkpoint.config),
            "model": [str(checkpoint.root.resolve()), fingerprint(checkpoint.root)],
            "calibration": calibration.digest,
            "targets": [
                [
                    *[plan.name, plan.format, dict(plan.options), plan.model_name, str(plan.out.absolute())],
                    files_of(plan),
                ]
                for plan in targets
            ],
        }
    )


def _fill(
    checkpoint: Checkpoint,
    places: Sequence[tuple[TargetPlan, Path]],
    calibration: CalibrationSet,
    journal: RunJournal,
    threads: int,
    memory: int | None,
) -> None:
    """Walk and finish, from where the journal stands; afterwards it holds every target's facts."""
    targets: list[Target | None] = [
        FORMATS[plan.format].open(checkpoint, folder, format_options(plan, threads), calibration.digest)
        if facts is None
        else None
        for (plan, folder), facts in zip(places, journal.facts, strict=True)
    ]
    journal.restore(targets)
    visitors = [target for target in targets if target is not None]
    walk(checkpoint, calibration, visitors, memory=memory or default_budget(), journal=journal)
    for index, target in enumerate(targets):
        if target is not None:
            journal.finished(index, target.finish())


def _complete(
    checkpoint: Checkpoint,
    plan: TargetPlan,
    folder: Path,
    facts: ArtifactFacts,
    calibration: CalibrationSet,
    inputs: Mapping[str, Any],
    threads: int,
) -> dict[str, Any]:
    """Add licences, card and manifest to a finished target's folder; returns the manifest."""
    copy_licences(checkpoint.root, folder)
    if plan.format == "gguf":
        write_modelfile(checkpoint, folder, str(calibration.audit.to_json().get("dialect", "chat-template")))
    source = read_manifest(checkpoint.root)
    made = manifest(
        plan.format,
        artifact=facts,
        options={key: Path(value).name if key in _FILES else value for key, value in plan.options.items()},
        calibration=calibration.audit.to_json(),
        card=cards.origin(checkpoint.root, source),
        source=source and {key: source[key] for key in source if key not in _OF_THE_FOLDER},
        inputs={**inputs, **_named_files(plan)},
        files=folder_facts(folder, without={FOLDER}, threads=threads, hidden=True),
    )
    (folder / CARD_NAME).write_text(artifact_card(plan.name, made), encoding="utf-8")
    write_manifest(folder, made)
    return made
