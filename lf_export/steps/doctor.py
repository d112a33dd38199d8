"""`doctor`: what works on this machine, and the command that enables the rest.

Each part is tried in a process of its own: an import that ends the process (an instruction that the processor lacks, a
broken library) is a finding about that part, and the others are still told.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement

from lf_export.errors import InputError, MissingError
from lf_export.provenance import machine
from lf_export.version import __version__
from lf_export.walk.budget import available_memory

Sort = Literal["core", "format", "runtime", "extra"]

_SECONDS = 120  # a first import from a cold disk is slow
_TOGETHER = 2

# What a line of facts begins with: libraries print too.
_MARK = "lf-export-doctor "
# The process of a part: its first argument is the part's code. Our own errors and a failed import are told as they are;
# anything else ends it, and its last line is told.
_PROBE = f"""
import json, sys
from lf_export.errors import ExportError
facts = {{}}
try:
    exec(sys.argv[1], {{"facts": facts}})
except ExportError as error:
    facts = {{"problem": error.message, "remedy": error.hint}}
except ImportError as error:
    facts = {{"problem": str(error), "remedy": None}}
print({_MARK!r} + json.dumps(facts), flush=True)
"""

# What each part's process runs before it prints a JSON object of facts. It raises what the product itself would raise.
_TORCH = """
import torch
facts["version"] = torch.__version__
facts["devices"] = [torch.cuda.get_device_name(at) for at in range(torch.cuda.device_count())]
"""
_TRANSFORMERS = "import transformers, peft\nfacts['version'] = transformers.__version__"
_GGUF = """
from lf_export.formats.gguf_arch import gguf_library
from lf_export.quant.ggml import library
import importlib.metadata
gguf_library(); library()
facts["version"] = "xllamacpp " + importlib.metadata.version("xllamacpp")
"""
_ONNX_FORMAT = "from lf_export.formats.onnx_rules import check_packages\ncheck_packages('builder')"
_TRANSFORMERS_RUNTIME = """
from lf_export.runtimes.transformers import check_kernels
check_kernels()
import gptqmodel
facts["version"] = "gptqmodel " + gptqmodel.__version__
"""
_LLAMACPP = "from lf_export.runtimes.llamacpp_native import llama\nllama()"
_ONNX = """
from lf_export.quant.ort import onnxruntime
module = onnxruntime()
facts["version"] = "onnxruntime " + module.__version__
facts["devices"] = [name.removesuffix("ExecutionProvider") for name in module.get_available_providers()]
"""
_GENAI = "from lf_export.runtimes.genai import check_library\ncheck_library()"


def _import(module: str, distribution: str) -> str:
    return (
        f"import importlib.metadata, {module}\n"
        f"facts['version'] = '{distribution} ' + importlib.metadata.version('{distribution}')"
    )


@dataclass(frozen=True)
class Part:
    """Something that may or may not work.

    Attributes:
        sort: what it is a part of.
        name: a format's, a runtime's or an extra's.
        code: what its process runs.
        extra: what pip installs for it, `lf-export[extra]`; None for what every installation has.
        serves: what it is for.
    """

    sort: Sort
    name: str
    code: str
    extra: str | None
    serves: str


PARTS: tuple[Part, ...] = (
    Part("core", "torch", _TORCH, None, "everything"),
    Part("core", "transformers", _TRANSFORMERS, None, "merging, calibration, the torch runtime"),
    Part("format", "gptq", "import lf_export.formats.gptq", None, "writing GPTQ folders"),
    Part("format", "awq", "import lf_export.formats.awq", None, "writing AWQ folders"),
    Part("format", "gguf", _GGUF, "gguf", "writing GGUF files"),
    Part("format", "onnx", _ONNX_FORMAT, "onnx", "building ONNX graphs"),
    Part("runtime", "torch", "import lf_export.runtimes.torch", None, "judging merged models, GPTQ and AWQ"),
    Part("runtime", "transformers", _TRANSFORMERS_RUNTIME, "gptq", "judging GPTQ and AWQ with real kernels"),
    Part("runtime", "llamacpp", _LLAMACPP, "gguf", "judging GGUF in llama.cpp"),
    Part("runtime", "onnx", _ONNX, "onnx", "judging ONNX in ONNX Runtime"),
    Part("runtime", "genai", _GENAI, "onnx", "judging ONNX in ONNX Runtime GenAI"),
    Part("runtime", "endpoint", _import("httpx2", "httpx2"), "endpoint", "judging a server"),
    Part("extra", "grammar", _import("llguidance", "llguidance"), "grammar", "the grammar-constrained arm"),
    Part(
        "extra", "sign", _import("model_signing, cyclonedx", "model-signing"), "sign", "signatures, bill of materials"
    ),
    Part("extra", "try", _import("gradio", "gradio"), "try", "the page of `lf-export try`"),
    Part("extra", "ray", _import("ray", "ray"), "ray", "several machines"),
)


@dataclass(frozen=True)
class Finding:
    """What became of a part.

    Attributes:
        sort: as in `Part`.
        name: as in `Part`.
        works: whether it can be used.
        serves: what it is for.
        version: of what it stands on, where that tells something.
        devices: what it can compute on besides the processor, as it names them.
        problem: why it cannot be used; None where it can.
        remedy: the command that would enable it; None where none is known.
    """

    sort: Sort
    name: str
    works: bool
    serves: str
    version: str | None = None
    devices: Sequence[str] = ()
    problem: str | None = None
    remedy: str | None = None


def chosen_parts(names: Sequence[str], parts: Sequence[Part] = PARTS) -> list[Part]:
    """The core and the parts of these names (`gguf`: the format; `runtime:onnx`: one of two); all without a name.

    Raises:
        InputError: there is no such part.
    """
    known = {name for part in parts for name in (part.name, f"{part.sort}:{part.name}")}
    if unknown := [name for name in names if name not in known]:
        expected = ", ".join(sorted({part.name for part in parts if part.sort != "core"}))
        raise InputError(f"no part is named {', '.join(unknown)}, expected one of: {expected}")
    wanted = {part.name for part in parts} if not names else set(names)
    return [part for part in parts if part.sort == "core" or {part.name, f"{part.sort}:{part.name}"} & wanted]


def examine(parts: Sequence[Part] = PARTS, folder: Path | None = None) -> dict[str, Any]:
    """Try parts; facts as JSON values.

    Args:
        parts: what to try.
        folder: where there should be room on disk; the current one where not given.
    """
    with ThreadPoolExecutor(_TOGETHER) as pool:
        findings = list(pool.map(_tried, parts))
    return {
        "lf_export": __version__,
        "python": sys.version.split()[0],
        "machine": machine() | {"memory_available_bytes": available_memory(), "threads": _threads()},
        "disk_free_bytes": _free(folder or Path.cwd()),
        "gpus": _gpus(findings),
        "versions": _other_versions(),
        "parts": [asdict(finding) for finding in findings],
    }


def check_works(facts: Mapping[str, Any], *, core_alone: bool) -> None:
    """See that what was tried works.

    Args:
        facts: of `examine`.
        core_alone: whether only the core must.

    Raises:
        MissingError: something does not work; names all of it, with the commands that would enable it.
    """
    broken = [part for part in facts["parts"] if not part["works"] and (part["sort"] == "core" or not core_alone)]
    if broken:
        text = "\n".join(f"{part['sort']} {part['name']} does not work: {part['problem']}" for part in broken)
        raise MissingError(text, "; ".join(dict.fromkeys(part["remedy"] for part in broken if part["remedy"])) or None)


def doctor_text(facts: Mapping[str, Any]) -> str:
    """The facts for a person."""
    computer = facts["machine"]
    lines = [
        f"lf-export {facts['lf_export']}, Python {facts['python']}",
        f"processor  {computer['processor']}, {computer['cores']} cores, {computer['threads']} threads a process",
        f"           {' '.join(computer['instruction_sets']) or 'no vector instructions known'}",
        f"memory     {_size(computer['memory_available_bytes'])} available of {_size(computer['memory_bytes'])}",
        f"disk       {_size(facts['disk_free_bytes'])} free here",
        f"GPU        {', '.join(facts['gpus']) or 'none that anything here can use'}",
    ]
    titles = {"core": "core", "format": "formats to write", "runtime": "runtimes to judge in", "extra": "extras"}
    width = max(len(part["name"]) for part in facts["parts"])
    for sort, title in titles.items():
        chosen = [part for part in facts["parts"] if part["sort"] == sort]
        lines += ["", title] if chosen else []
        for part in chosen:
            mark = "ok     " if part["works"] else "MISSING"
            version = f" ({part['version']})" if part["version"] else ""
            lines.append(f"  {mark}  {part['name']:<{width}}  {part['serves']}{version}")
            if not part["works"]:
                lines.append(f"           {part['problem']}")
            if part["remedy"]:
                lines.append(f"           → {part['remedy']}")
    if facts["versions"]:
        lines += ["", "versions other than those that lf-export was written for"]
        lines += [f"  {line}" for line in facts["versions"]]
    return "\n".join(lines)


def _tried(part: Part) -> Finding:
    variables = os.environ | {"OMP_NUM_THREADS": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
    try:
        ended = subprocess.run(
            [sys.executable, "-c", _PROBE, part.code],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
            env=variables,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return _broken(part, f"did not start within {_SECONDS} s", None)
    line = next((line for line in reversed(ended.stdout.splitlines()) if line.startswith(_MARK)), None)
    if line is not None:
        said = json.loads(line.removeprefix(_MARK))
        if "problem" in said:
            return _broken(part, said["problem"], said["remedy"])
        return Finding(part.sort, part.name, True, part.serves, said.get("version"), said.get("devices", ()))
    last = next((text for text in reversed(ended.stderr.splitlines()) if text.strip()), "it said nothing")
    ending = f"signal {-ended.returncode}" if ended.returncode < 0 else f"status {ended.returncode}"
    return _broken(part, f"ended with {ending}: {last.strip()}", None)


def _broken(part: Part, problem: str, remedy: str | None) -> Finding:
    install = None if part.extra is None else f"pip install 'lf-export[{part.extra}]'"
    return Finding(part.sort, part.name, False, part.serves, problem=problem, remedy=remedy or install)


def _other_versions() -> list[str]:
    """Packages that are installed in a version that lf-export does not ask for."""
    try:
        required = metadata.requires("lf-export") or []
    except metadata.PackageNotFoundError:  # run from a source tree that was never installed
        return []
    found = []
    for line in required:
        requirement = Requirement(line)
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            found.append(f"{requirement.name} {version}, expected {requirement.specifier}")
    return sorted(set(found))


def _threads() -> int:
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if re.fullmatch(r"[1-9]\d{0,3}", given) else len(os.sched_getaffinity(0))


def _free(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def _gpus(findings: Sequence[Finding]) -> list[str]:
    """Devices of torch, and providers of ONNX Runtime that are no processor."""
    return list({name: None for finding in findings for name in finding.devices if name not in {"CPU", "Azure"}})


def _size(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 1e9:.1f} GB"
