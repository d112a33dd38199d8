"""One plan with every format on a tiny model, and a child process that runs it and kills itself where it is told."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import transformers.models.llama.modeling_llama  # noqa: F401 - a child has it at once
from models import tiny_model
from said import Said
from walk_data import RandomSample, random_data

import lf_export.walk.decoder  # noqa: F401 - likewise
from lf_export.checkpoint.index import open_checkpoint
from lf_export.progress import reporting
from lf_export.steps.quantize import TargetPlan, quantize_targets

LAYERS = 3
BATCHES = 2
FORMATS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "gptq": ("gptq", {"group_size": 32}),
    "mixed": ("gptq", {"group_size": 32, "bits": 4.5}),
    "awq": ("awq", {"group_size": 32}),
    "gguf": ("gguf", {"type": "Q4_K_M"}),
    "imatrix": ("gguf", {"type": "Q4_K_M", "method": "imatrix"}),
    "rtn": ("gguf", {"type": "Q8_0", "method": "rtn"}),
    "onnx": ("onnx", {"group_size": 32}),
    "onnx-awq": ("onnx", {"group_size": 32, "method": "awq"}),
}
QUICK = ("gptq", "mixed", "awq", "gguf", "imatrix")


class _Audit:
    def to_json(self) -> dict[str, Any]:
        return {"samples": 24}


@dataclass(frozen=True)
class Calibration:
    """Random samples as a calibration set has them, in `BATCHES` batches."""

    samples: Sequence[RandomSample] = field(default_factory=lambda: random_data([70, 64, 85, 80] * 6).samples)
    weights: Mapping[int, float] = field(default_factory=dict)
    digest: str = "0" * 64
    audit: _Audit = field(default_factory=_Audit)


def model(folder: Path) -> Path:
    """A model of `LAYERS` layers."""
    return tiny_model(folder, num_hidden_layers=LAYERS)


def plans(out: Path, formats: Sequence[str] = QUICK, **options: Any) -> list[TargetPlan]:
    """A target for each of `formats`; `options` change those of the first."""
    changed = [options] + [{}] * len(formats)
    return [
        TargetPlan(name, FORMATS[name][0], out / name, {**FORMATS[name][1], **more}, "tiny")
        for name, more in zip(formats, changed, strict=False)
    ]


def quantize(folder: Path, out: Path, formats: Sequence[str] = QUICK, **changes: Any) -> Said:
    """Run the plan; returns what was said. `memory` and `calibration` are for the step, the rest changes options."""
    memory = changes.pop("memory", None)
    calibration: Any = changes.pop("calibration", Calibration())
    said = Said()
    with reporting(said):
        quantize_targets(open_checkpoint(folder), plans(out, formats, **changes), calibration, memory=memory)
    # a killed run leaves its lock, which the next one takes over and says so
    said.lines = [line for line in said.lines if not line.startswith("taking over the lock of process")]
    return said


def files(out: Path) -> dict[str, bytes]:
    """Everything below a folder, hidden files too."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def _dying(original: Callable[..., Any], when: Callable[..., bool], number: int) -> Callable[..., Any]:
    def run(*arguments: Any, **keywords: Any) -> Any:
        result = original(*arguments, **keywords)
        if when(*arguments):
            os.kill(os.getpid(), number)
        return result

    return run


def _arm(where: str, layer: int, number: int) -> None:
    from lf_export.formats.awq import AwqTarget
    from lf_export.steps import quantize as step
    from lf_export.steps.journal import RunJournal
    from lf_export.walk.decoder import Decoder

    calls: list[int] = []

    def second(_decoder: Any, _module: Any, index: int, _hidden: Any) -> bool:
        calls.append(index)
        return calls.count(layer) == BATCHES and index == layer

    if where == "forward":
        Decoder.run = _dying(Decoder.run, second, number)  # type: ignore[method-assign]
    elif where == "layer":
        AwqTarget.layer = _dying(AwqTarget.layer, lambda _, view: view.index == layer, number)  # type: ignore[method-assign]
    elif where == "finish":
        RunJournal.finished = _dying(RunJournal.finished, lambda *_: True, number)  # type: ignore[method-assign]
    else:
        step.write_manifest = _dying(step.write_manifest, lambda folder, _: "imatrix" in folder.name, number)


def _run(model: Path, out: Path, where: str, layer: int, number: int, formats: Sequence[str], log: Path) -> None:
    _arm(where, layer, number)
    said = Said()
    try:
        with reporting(said):
            quantize_targets(open_checkpoint(model), plans(out, formats), Calibration())  # type: ignore[arg-type]
    except KeyboardInterrupt:
        said.lines.append("KeyboardInterrupt")
    finally:
        log.write_text("\n".join(said.lines), encoding="utf-8")


def kill(
    model: Path, out: Path, where: str, layer: int, number: int = signal.SIGKILL, formats: Sequence[str] = QUICK
) -> list[str]:
    """Run the plan in a child that sends itself a signal; returns what it said, if it could.

    Args:
        model: the model's folder.
        out: the plan's folder.
        where: `forward` (a layer runs on its second batch), `layer` (a layer's targets are half done), `finish` (the
            first target is finished) or `end` (every target is finished, nothing is published).
        layer: in which layer.
        number: the signal.
        formats: of the plan.
    """
    log = out.with_name(f"{out.name}.log")
    log.unlink(missing_ok=True)
    # a server that has imported everything once, and runs nothing itself
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["resumed"])
    child = context.Process(target=_run, args=(model, out, where, layer, int(number), tuple(formats), log))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # not every Python hands its path to the server
        child.start()
    child.join()
    assert child.exitcode == (-number if number == signal.SIGKILL else 0)
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else []
