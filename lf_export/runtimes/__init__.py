"""Runtimes: load an artifact, give its logits, its answers and a time for each token."""

import importlib
from pathlib import Path
from typing import cast

from lf_export.errors import InputError
from lf_export.runtimes.base import Generation, Logits, Runtime, Session

RUNTIMES = ("torch", "transformers", "llamacpp", "onnx", "genai")
"""Names of runtimes; each is a module of this package, imported when it is asked for, for each is heavy."""


def runtime(name: str) -> Runtime:
    """The runtime of that name.

    Raises:
        InputError: there is none.
    """
    if name not in RUNTIMES:
        raise InputError(f"no runtime is named {name!r}, expected one of: {', '.join(RUNTIMES)}")
    return cast("Runtime", importlib.import_module(f"lf_export.runtimes.{name}"))


def default_runtime(path: Path) -> str:
    """The runtime that an artifact is judged in where none is named: llamacpp for GGUF, onnx for ONNX, else torch."""
    if path.suffix == ".gguf" or (path.is_dir() and any(path.glob("*.gguf"))):
        return "llamacpp"
    if (path / "genai_config.json").is_file():
        return "onnx"
    return "torch"


__all__ = ["RUNTIMES", "Generation", "Logits", "Runtime", "Session", "default_runtime", "runtime"]
