"""The ONNX format: a folder for ONNX Runtime GenAI, built by its builder and compared with the model afterwards."""

import shutil
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from lf_export.checkpoint.carry import CONFIG_NAME, copy_companions
from lf_export.checkpoint.index import Checkpoint
from lf_export.checkpoint.staging import disk_errors
from lf_export.errors import StepError
from lf_export.formats.awq_layers import AwqLayers, fallbacks
from lf_export.formats.base import ArtifactFacts, Format, FormatOptions, Snapshot
from lf_export.formats.linears import linear_names, mean_of, solution_facts
from lf_export.formats.onnx_build import GRAPH_NAME, aim_at, build, builder_options, set_windows
from lf_export.formats.onnx_import import ImportFolder, block_size_for, plain_layer
from lf_export.formats.onnx_rules import check_architecture, check_packages, route
from lf_export.formats.onnx_verify import Expected, verify
from lf_export.progress import say
from lf_export.quant.gptq import rtn
from lf_export.quant.grid import Scheme
from lf_export.quant.solve import Solution, quantize_group
from lf_export.walk.decoder import attention_windows
from lf_export.walk.families import family_of
from lf_export.walk.view import LayerView

# Inside of the staging folder: what only the builder reads.
_SCRATCH = ".builder"
_FLOAT_BYTES = {"fp32": 4, "fp16": 2}


class OnnxOptions(FormatOptions):
    """The options of an ONNX target.

    Attributes:
        precision: of the decoder's linears; fp32 and fp16 quantize nothing.
        provider: the execution provider that the graph is for. A graph for cuda is in fp16; it is compared with the
            model on the CPU.
        method: how integers are found: `gptq` or `awq` from the calibration pass, or `rtn`, rounding to nearest. AWQ's
            are those of the AWQ format: 4 bits, each group with a zero of its own, norms and biases that take scales.
        group_size: input columns that share a scale; auto: the largest of 128, 64, 32 and 16 that divides every width.
        sym: the zero is the middle of the grid. Zeros are stored either way and cost nothing at run time.
        damp_percent: damping, as a share of the mean of diag(H).
        lm_head: the output layer: `float` as the model's precision allows, or rounded to nearest to int8 or int4.
        accuracy_level: ONNX Runtime's: 4 rounds the activations of quantized linears to int8, 1 computes in fp32.
        threads: of the builder and the comparison.
    """

    precision: Literal["fp32", "fp16", "int8", "int4"] = "int4"
    provider: Literal["cpu", "cuda"] = "cpu"
    method: Literal["gptq", "awq", "rtn"] = "gptq"
    group_size: Literal["auto", 16, 32, 64, 128, 256] = "auto"
    sym: bool = False
    damp_percent: Annotated[float, Field(gt=0, lt=1)] = 0.01
    lm_head: Literal["float", "int8", "int4"] = "float"
    accuracy_level: Literal[1, 4] | None = None
    threads: Annotated[int, Field(ge=1, le=64)] = 1

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.bits is None and self.lm_head != "float":
            raise ValueError(f"lm_head {self.lm_head} needs precision int8 or int4, not {self.precision}")
        if self.method == "awq" and (self.precision != "int4" or self.sym):
            raise ValueError(f"method awq needs precision int4 without sym, not {self.precision}, sym {self.sym}")
        return self

    @property
    def bits(self) -> int | None:
        """Of each quantized weight; None where nothing is quantized."""
        return {"int8": 8, "int4": 4}.get(self.precision)

    @property
    def arithmetic(self) -> str:
        """In which the graph computes what is not quantized."""
        return "fp16" if self.provider == "cuda" or self.precision == "fp16" else "fp32"

    @property
    def level(self) -> int | None:
        """The accuracy level of quantized nodes: of CPU graphs, 4 where nothing else is asked."""
        if self.bits is None:
            return None
        # On SmolLM2-135M, int4, one thread: level 4 takes 15 ms for a token, level 1 22 ms.
        return self.accuracy_level or (4 if self.provider == "cpu" else 1)


class OnnxTarget:
    """Quantizes layer by layer into a folder for the builder; `finish` builds the graph and compares it.

    Args:
        checkpoint: the model.
        out: an existing, empty folder.
        options: what to build.
        audit_digest: unused: the manifest holds the calibration's audit.

    Raises:
        InputError: precision, provider, architecture or group size are not among those that the builder gets right.
        MissingError: a package is not installed, or both of ONNX Runtime's wheels are.
    """

    def __init__(self, checkpoint: Checkpoint, out: Path, options: OnnxOptions, audit_digest: str) -> None:  # noqa: ARG002
        check_packages()
        self._route = route(options.precision, options.provider)
        self._scheme = _scheme(checkpoint, options)
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
        """Build the graph, compare it with the model, and leave nothing but the artifact.

        Raises:
            StepError: calibration beat rounding nowhere, the builder failed, or the graph is not the model.
        """
        self._check_calibration()
        options, checkpoint = self._options, self._checkpoint
        with disk_errors(self._out):
            self._scratch.mkdir(exist_ok=True)
            if self._import is not None:
                self._import.finish()
            source = checkpoint.root if self._import is None else self._scratch / "gptq"
            say(f"building the graph with onnxruntime-genai's builder ({options.precision}, {options.provider})")
            asked = builder_options(options.lm_head, tied=checkpoint.tied, accuracy_level=options.level)
            build(source, self._out, self._scratch, self._route, asked, options.threads)
            set_windows(self._out / GRAPH_NAME, attention_windows(checkpoint))
            aim_at(self._out, options.provider)
            self._carry()
            say("comparing the graph with the model")
            verified = verify(self._out / GRAPH_NAME, self._expected(), options.threads)
            shutil.rmtree(self._scratch)
        return self._facts(verified)

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
            "options": {"precision": options.precision, "provider": options.provider, "lm_head": options.lm_head},
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


def _scheme(checkpoint: Checkpoint, options: OnnxOptions) -> Scheme | None:
    """The integers' scheme, None where nothing is quantized.

    Raises:
        InputError: what the builder, the layout or the walk does not admit.
    """
    route(options.precision, options.provider)
    check_architecture(checkpoint.config)
    family_of(checkpoint.config)
    if options.bits is None:
        return None
    size = block_size_for(checkpoint, options.group_size)
    return Scheme(bits=options.bits, group_size=size, sym=options.sym, damp_percent=options.damp_percent)


def _size(checkpoint: Checkpoint, options: OnnxOptions) -> int:
    """Bytes of the weights in the graph's data, from shapes alone."""
    scheme = _scheme(checkpoint, options)
    wide = _FLOAT_BYTES[options.arithmetic]
    linears = {f"{name}.weight" for name in linear_names(checkpoint)} if scheme else set()
    total = 0
    for name, info in checkpoint.tensors.items():
        if scheme is not None and name in linears:
            total += _packed_bytes(info.shape, scheme.bits, scheme.group_size, wide)
        elif name != "lm_head.weight":
            total += prod(info.shape) * wide
    head = checkpoint.info(family_of(checkpoint.config).embedding if checkpoint.tied else "lm_head.weight")
    if options.lm_head != "float":  # the builder's rounding has groups of 32 and no zeros
        total += _packed_bytes(head.shape, int(options.lm_head.removeprefix("int")), 32, wide)
    elif not checkpoint.tied:
        total += prod(head.shape) * wide
    return total + _rotary_entries(checkpoint.config) * wide


def _rotary_entries(config: Mapping[str, Any]) -> int:
    """Elements of the cosines and sines that the graph holds for every position."""
    width = config.get("head_dim") or int(config["hidden_size"]) // int(config["num_attention_heads"])
    return int(config.get("max_position_embeddings", 0)) * int(width)


def _packed_bytes(shape: tuple[int, ...], bits: int, size: int, wide: int) -> int:
    rows, width = shape
    groups = -(-width // size)
    return rows * (groups * size * bits // 8 + groups * wide + -(-groups * bits // 8))


FORMAT = Format(
    name="onnx",
    summary="a folder for ONNX Runtime and ONNX Runtime GenAI",
    options=OnnxOptions,
    open=OnnxTarget,
    size=_size,
    schemes={
        f"{precision}-{provider}": {"precision": precision, "provider": provider}
        for precision, provider in (
            ("fp32", "cpu"), ("fp16", "cpu"), ("int8", "cpu"), ("int4", "cpu"),
            ("fp16", "cuda"), ("int8", "cuda"), ("int4", "cuda"),
        )
    },
)  # fmt: skip
