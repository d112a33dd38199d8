"""Where an artifact comes from: digests, versions, machine, and the manifest that every artifact carries."""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from lf_export import __version__
from lf_export.errors import InputError

MANIFEST_NAME = "lf-export.json"
MANIFEST_SCHEMA = 1

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
_CHUNK = 8 << 20


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
    """What ran: processor, cores that this process may use, memory in bytes, operating system."""
    return {
        "system": platform.system(),
        "processor": _processor(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def manifest(kind: str, **facts: Any) -> dict[str, Any]:
    """A manifest: `kind` (merged, gptq, gguf, …), versions, machine, and the facts of the step.

    Facts that are the same for the same inputs belong at the top level; times do not, so that an
    undisturbed run and a resumed one write the same bytes.
    """
    return {"schema": MANIFEST_SCHEMA, "kind": kind, "versions": versions(), "machine": machine(), **facts}


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> Path:
    """Write `facts` as the manifest of the artifact in `folder`; returns the file's path."""
    path = folder / MANIFEST_NAME
    path.write_text(json.dumps(facts, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


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
