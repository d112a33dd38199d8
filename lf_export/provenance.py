"""Where an artifact comes from: digests, versions, machine, and the manifest that every artifact carries."""

import hashlib
import json
import os
import platform
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from lf_export.errors import InputError
from lf_export.manifest_keys import unknown_keys
from lf_export.version import __version__

MANIFEST_NAME = "lf-export.json"
MANIFEST_SCHEMA = 2
"""2: `files`, `inputs` and `digest`, so that `lf-export verify` can check the whole."""

_PACKAGES = (
    "torch",
    "transformers",
    "safetensors",
    "tokenizers",
    "peft",
    "gguf",
    "xllamacpp",
    "gptqmodel",
    "onnxruntime",
    "onnxruntime-genai",
    "numpy",
)
_CPUINFO = Path("/proc/cpuinfo")
_CHUNK = 8 << 20
_VECTORS = (  # as Linux names them; what torch's, llama.cpp's and ONNX Runtime's matrix kernels choose between
    "avx",
    "f16c",
    "fma",
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "fphp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
    "sme",
)


def sha256_file(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal, read in chunks of 8 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(value: Any) -> str:
    """The sha256 of a JSON value in canonical form, in hexadecimal."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of lf-export, Python and the libraries that shape an artifact, where they are installed."""
    found = {"lf-export": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """What ran: processor and its vector instructions, cores that this process may use, memory in bytes, system."""
    cpuinfo = _cpuinfo()
    return {
        "system": platform.system(),
        "processor": cpuinfo.get("model name") or platform.processor() or "unknown",
        "architecture": platform.machine(),
        "instruction_sets": _instruction_sets(cpuinfo),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def _cpuinfo() -> dict[str, str]:
    """Linux's description of the first processor; empty elsewhere."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _instruction_sets(cpuinfo: Mapping[str, str]) -> list[str]:
    """Those of `_VECTORS` that the processor has: `flags` on x86, `Features` on Arm."""
    found = (cpuinfo.get("flags") or cpuinfo.get("Features") or "").split()
    return [name for name in _VECTORS if name in found]


def manifest(kind: str, **facts: Any) -> dict[str, Any]:
    """A manifest: `kind` (merged, gptq, gguf, …), versions, machine, and the facts of the step.

    Facts that are the same for the same inputs belong at the top level; times do not, so that an
    undisturbed run and a resumed one write the same bytes.

    Raises:
        ValueError: a fact that no manifest of this kind has (`manifest_keys`): a bug of ours.
    """
    if unknown := unknown_keys(kind, facts):
        raise ValueError(f"a manifest of kind {kind} has no {', '.join(unknown)}: describe it in manifest_keys.py")
    return {"schema": MANIFEST_SCHEMA, "kind": kind, "versions": versions(), "machine": machine(), **facts}


def sealed_text(facts: Mapping[str, Any]) -> str:
    """The text of a manifest: `facts` and their own `digest`, so that a changed byte of the manifest itself shows.

    The digest is the sha256 of the text without it. Law: `sealed_text(json.loads(sealed_text(facts)))` is the same.
    """
    plain = {key: value for key, value in facts.items() if key != "digest"}
    digest = hashlib.sha256(_manifest_text(plain).encode()).hexdigest()
    return _manifest_text({**plain, "digest": digest})


def _manifest_text(facts: Mapping[str, Any]) -> str:
    return json.dumps(facts, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> Path:
    """Write `facts` as the manifest of the artifact in `folder`, whole or not at all; returns the file's path."""
    path = folder / MANIFEST_NAME
    staged = path.with_name(f".{path.name}.staging")
    staged.write_text(sealed_text(facts), encoding="utf-8")
    staged.replace(path)
    return path


def public_name(value: Any) -> str | None:
    """A model's name as a manifest may say it: a hub id or relative path as it is, of another machine's path the end.

    None where it is no text.
    """
    if not isinstance(value, str):
        return None
    absolute = value.startswith(("/", "~", "\\")) or re.match(r"[A-Za-z]:[\\/]|file:", value) or ".." in value
    return re.split(r"[\\/]", value.rstrip("\\/"))[-1] if absolute else value


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest in `folder`, or None where there is none.

    Raises:
        InputError: the file is there and is not a manifest.
    """
    path = folder / MANIFEST_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a manifest: {error}") from error
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not JSON: {error.msg}") from error
    if not isinstance(value, dict) or "kind" not in value:
        raise InputError(f"{path}: not an lf-export manifest (no 'kind')")
    return value
