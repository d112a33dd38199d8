"""The ONNX format: a folder for ONNX Runtime and ONNX Runtime GenAI, compared with the model when it is made."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lf_export.checkpoint.carry import CONFIG_NAME, copy_companions
from lf_export.checkpoint.index import Checkpoint
from lf_export.checkpoint.staging import disk_errors
from lf_export.errors import StepError
from lf_export.formats.awq_layers import AwqLayers, fallbacks
from lf_export.formats.base import ArtifactFacts, Format, Snapshot
from lf_export.formats.linears import mean_of, solution_facts
from lf_export.formats.onnx_build import aim_at, build, builder_options, set_windows
from lf_export.formats.onnx_child import GRAPH_NAME
from lf_export.formats.onnx_dynamo import export, genai_config
from lf_export.formats.onnx_import import ImportFolder, plain_layer
from lf_export.formats.onnx_options import OnnxOptions, exporter_of, scheme_of, size_of
from lf_export.formats.onnx_rules import check_packages, route
from lf_export.formats.onnx_verify import Expected, verify
from lf_export.progress import say
from lf_export.quant.gptq import rtn
from lf_export.quant.solve import Solution, quantize_group
from lf_export.walk.view import LayerView
from lf_export.walk.windows import attention_windows

# Inside of the staging folder: what only the exporter reads.
_SCRATCH = ".builder"


class OnnxTarget:
    """Quantizes layer by layer into a folder for the builder; `finish` builds the graph and compares it.

    Args:
        checkpoint: the model.
        out: an existing, empty folder.
        options: what to build.
        audit_digest: unused: the manifest holds the calibration's audit.

    Raises:
        InputError: precision, provider, architecture or group size are not among those that come out right.
        MissingError: a package is not installed, or both of ONNX Runtime's wheels are.
    """

    def __init__(self, checkpoint: Checkpoint, out: Path, options: OnnxOptions, audit_digest: str) -> None:  # noqa: ARG002
        self._exporter = exporter_of(checkpoint, options)
        check_packages(self._exporter)
        if self._exporter == "dynamo":
            genai_config(checkpoint)  # what it lacks is known now, not after the export
        self._scheme = scheme_of(checkpoint, options)
        self._checkpoint, self._out, self._options = checkpoint, out, options
        self._scratch = out / _SCRATCH
        self.needs_moments = self._scheme is not None and options.method != "rtn"
        self._linear_facts: dict[str, dict[str, Any]] = {}
        self._import: ImportFolder | None = None
        self._awq: AwqLayers | None = None
        if self._scheme is not None:
            if options.method == "awq":
                self._awq = AwqLayers(checkpoint, self._scheme)
            with disk_errors(out):
                self._scratch.mkdir(exist_ok=True)
                self._import = ImportFolder(checkpoint, self._scratch / "gptq", self._scheme)

    def layer(self, view: LayerView) -> None:
        """Quantize the linears of a layer, where anything is quantized."""
        if self._import is None or self._scheme is None:
            return
        if self._awq is not None:
            for solved in self._awq.solve(view):
                for name, tensor in solved.stored.items():
                    self._import.put_plain(name, tensor)
                for module, quantized in solved.quantized.items():
                    self._import.put(module, quantized)
            self._linear_facts = self._awq.facts
            return
        for group in view.groups:
            weights = {name: view.weights[f"{name}.weight"] for name in group}
            if self._options.method == "rtn":
                for name, W in weights.items():
                    self._import.put(f"{view.prefix}.{name}", rtn(W, self._scheme))
                continue
            solutions = quantize_group(weights, view.moments[group[0]], view.heldout.get(group[0]), self._scheme)
            for name, solution in solutions.items():
                self._put(f"{view.prefix}.{name}", solution)

    def snapshot(self) -> Snapshot:
        """Which tensors the builder's folder holds, and what is known of the linears."""
        written = self._import.snapshot() if self._import else []
        return Snapshot({"linears": self._linear_facts, "written": written})

    def restore(self, snapshot: Snapshot) -> None:
        """Go on after a snapshot."""
        self._linear_facts = dict(snapshot.facts["linears"])
        if self._awq is not None:
            self._awq.facts = self._linear_facts
        if self._import:
            self._import.restore(snapshot.facts["written"])

    def finish(self) -> ArtifactFacts:
        """Make the graph, compare it with the model, and leave nothing but the artifact.

        Raises:
            StepError: calibration beat rounding nowhere, the exporter failed, or the graph is not the model.
        """
        self._check_calibration()
        with disk_errors(self._out):
            self._scratch.mkdir(exist_ok=True)
            if self._import is not None:
                self._import.finish()
            self._make()
            self._carry()
            say("comparing the graph with the model")
            verified = verify(self._out / GRAPH_NAME, self._expected(), self._options.threads)
            shutil.rmtree(self._scratch)
        return self._facts(verified)

    def _make(self) -> None:
        """Let the exporter write graph and config."""
        options, checkpoint = self._options, self._checkpoint
        if self._exporter == "dynamo":
            say(f"exporting the graph with torch's dynamo exporter ({options.precision}, {options.provider})")
            export(checkpoint, self._out, self._scratch, options.precision, options.threads)
            return
        source = checkpoint.root if self._import is None else self._scratch / "gptq"
        say(f"building the graph with onnxruntime-genai's builder ({options.precision}, {options.provider})")
        asked = builder_options(options.lm_head, tied=checkpoint.tied, accuracy_level=options.level)
        wanted = route(options.precision, options.provider)
        build(source, self._out, self._scratch, wanted, asked, options.threads)
        set_windows(self._out / GRAPH_NAME, attention_windows(checkpoint))
        aim_at(self._out, options.provider)

    def _put(self, module: str, solution: Solution) -> None:
        assert self._import is not None  # noqa: S101 - `layer` has seen to it
        if solution.reason:
            say(f"{module}: rounded to nearest: {solution.reason}")
        self._linear_facts[module] = solution_facts(solution)
        self._import.put(module, solution.quantized)

    def _check_calibration(self) -> None:
        facts = self._linear_facts
        if self.needs_moments and all(each["method"] == "rtn" for each in facts.values()):
            reasons = [f"{name}: {each['reason']}" for name, each in facts.items()]
            raise StepError(
                f"calibration beat rounding to nearest in no linear ({'; '.join(reasons[:3])})",
                "give more calibration conversations, of the kind that the model will see",
            )

    def _carry(self) -> None:
        """Bring the companions that the builder left out; config.json would pass the folder off as a checkpoint."""
        folder = self._scratch / "companions"
        folder.mkdir()
        carried = copy_companions(self._checkpoint.root, folder)
        for name in carried.copied:
            if name != CONFIG_NAME and not (self._out / name).exists():
                (self._out / name).parent.mkdir(exist_ok=True)
                shutil.move(folder / name, self._out / name)

    def _expected(self) -> Expected:
        checkpoint, source = self._checkpoint, self._import
        return Expected(
            checkpoint=checkpoint,
            layer=(lambda prefix: plain_layer(checkpoint, prefix)) if source is None else source.layer,
            quantized=None if source is None else source.quantized,
            arithmetic=self._options.arithmetic,
            accuracy_level=self._options.level,
        )

    def _facts(self, verified: Mapping[str, Any]) -> ArtifactFacts:
        options, scheme, linears = self._options, self._scheme, self._linear_facts
        facts: ArtifactFacts = {
            "format": "onnx",
            "scheme": f"{options.precision}-{options.provider}",
            "options": {
                "precision": options.precision,
                "provider": options.provider,
                "lm_head": options.lm_head,
                "exporter": self._exporter,
            },
            "verified": dict(verified),
        }
        if options.provider == "cuda":
            facts["never_run_on"] = "cuda: graph and weights were compared on the CPU"
        if scheme is not None:
            facts["options"] |= {
                "method": options.method,
                "bits": scheme.bits,
                "group_size": scheme.group_size,
                "sym": scheme.sym,
                "accuracy_level": options.level,
            }
        if linears:
            facts["error"] = mean_of(linears, "error")
            facts["rtn_error"] = mean_of(linears, "rtn_error")
            facts["fallbacks"] = fallbacks(linears)
            facts["linears"] = linears
        return facts


FORMAT = Format(
    name="onnx",
    summary="a folder for ONNX Runtime and ONNX Runtime GenAI",
    options=OnnxOptions,
    open=OnnxTarget,
    size=size_of,
    schemes={
        f"{precision}-{provider}": {"precision": precision, "provider": provider}
        for precision, provider in (
            ("fp32", "cpu"), ("fp16", "cpu"), ("int8", "cpu"), ("int4", "cpu"),
            ("fp16", "cuda"), ("int8", "cuda"), ("int4", "cuda"),
        )
    },
)  # fmt: skip
