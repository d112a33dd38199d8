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
from lf_export.checkpoint.index import Checkpoint, open_checkpoint
from lf_export.checkpoint.staging import staging
from lf_export.errors import InputError
from lf_export.formats import FORMATS
from lf_export.formats.base import Target
from lf_export.provenance import manifest, read_manifest, sha256_file, write_manifest
from lf_export.report.card import artifact_card
from lf_export.steps.calibrate import CalibrateOptions, calibrate_model
from lf_export.walk.stream import walk

_CARD = "README.md"


@dataclass(frozen=True)
class TargetPlan:
    """One artifact to make: its name, its format's name, that format's options, its folder."""

    name: str
    format: str
    out: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    model_name: str = ""
    """What the model is called in files; the checkpoint's folder where it is empty."""


def targets_from_names(names: Sequence[str], out: Path, *, gguf_method: str = "gptq", **gptq: Any) -> list[TargetPlan]:
    """Targets from `--format` values such as `gptq`, `gptq:4.25`, `awq`, `gguf:Q4_K_M`, `onnx:int4`, `onnx:fp16-cuda`.

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
            options = {"type": scheme or "Q4_K_M", "method": gguf_method}
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
        options = {
            "types": (options["type"],),
            "method": options.get("method", "gptq"),
            "threads": threads,
            "name": plan.model_name,
        }
    elif plan.format == "onnx":
        options |= {"threads": threads}
    try:
        return kind.options.model_validate(options)
    except ValidationError as error:
        problems = [f"{plan.name}: {'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        raise InputError.of(problems) from error


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
) -> dict[str, Any]:
    """Quantize the model in `model` to every target in one pass; returns each artifact's manifest by path.

    Raises:
        InputError: a model, options or data that cannot be used.
        StepError: an artifact did not prove itself, or cannot be written.
    """
    checkpoint = open_checkpoint(model)
    check_targets(checkpoint, targets)
    data: CalibrationSet
    if calibration is not None:
        data = CalibrationSet.load(calibration)
    else:
        data = calibrate_model(CalibrateOptions(model, dialect=dialect, num_samples=num_samples, seed=seed))
    return {"artifacts": quantize_targets(checkpoint, targets, data, overwrite=overwrite, threads=threads)}


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
    overwrite: bool = False,
    threads: int = 1,
) -> dict[str, Any]:
    """One walk for every target; each artifact appears under its name when all are finished.

    Returns:
        Each artifact's manifest, by the path of its folder.
    """
    import torch  # noqa: PLC0415 - its threads are set here

    torch.set_num_threads(threads)
    manifests = {}
    with ExitStack() as stack:
        opened: list[tuple[TargetPlan, Path, Target]] = []
        for plan in targets:
            plan.out.parent.mkdir(parents=True, exist_ok=True)
            folder = stack.enter_context(staging(plan.out, overwrite=overwrite))
            kind = FORMATS[plan.format]
            opened.append(
                (plan, folder, kind.open(checkpoint, folder, format_options(plan, threads), calibration.digest))
            )
        walk(checkpoint, calibration, [target for _, _, target in opened])
        source = read_manifest(checkpoint.root)
        for plan, folder, target in opened:
            facts = target.finish()
            copy_licences(checkpoint.root, folder)
            made = manifest(
                plan.format,
                artifact=facts,
                options=dict(plan.options),
                calibration=calibration.audit.to_json(),
                source=source and {key: source[key] for key in source if key not in {"machine", "versions"}},
                files={
                    path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
                    for path in sorted(folder.rglob("*"))
                    if path.is_file()
                },
            )
            (folder / _CARD).write_text(artifact_card(plan.name, made), encoding="utf-8")
            write_manifest(folder, made)
            manifests[str(plan.out)] = made
    return manifests
