"""ONNX Runtime, imported once it is known that exactly one of its wheels is installed."""

from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from lf_export.errors import InputError, MissingError, StepError

# Both wheels write the folder `onnxruntime`: what was installed last wins, and `pip check` sees nothing.
_WHEELS = {"onnxruntime": "onnx", "onnxruntime-gpu": "onnx-gpu"}
_GENAI_WHEELS = ("onnxruntime-genai", "onnxruntime-genai-cuda")  # the same with the folder `onnxruntime_genai`
# In a graph's metadata: it gives keys and values with the new ones appended. Others write them where the old ones are.
CACHE_KEY, APPENDED = "lf_export.cache", "appended"

_FATAL = 3  # of the log's levels: what is worth an exception is raised as one


def installed_wheels(wheels: Iterable[str] = _WHEELS) -> list[str]:
    """Which of `wheels`, ONNX Runtime's own by default, the environment has, by the names of their distributions."""
    found = {distribution.metadata["Name"].lower().replace("_", "-") for distribution in metadata.distributions()}
    return [name for name in wheels if name in found]


@cache
def onnxruntime() -> Any:
    """The module, its telemetry and its log silenced.

    Raises:
        MissingError: no wheel is installed, or both are, or what is installed cannot be imported.
    """
    wheels = installed_wheels()
    for both in (wheels, installed_wheels(_GENAI_WHEELS)):
        if len(both) > 1:
            raise MissingError(
                f"{' and '.join(both)} are both installed: they share one folder, and the last one hides the other",
                f"pip uninstall --yes {' '.join(both)} && pip install 'lf-export[onnx]' (or 'lf-export[onnx-gpu]')",
            )
    if not wheels:
        raise MissingError("the package onnxruntime is not installed", "pip install 'lf-export[onnx]'")
    try:
        import onnxruntime as module  # noqa: PLC0415 - an extra

        module.set_default_logger_severity(_FATAL)
        module.disable_telemetry_events()
    except (ImportError, AttributeError) as error:  # what a half-removed wheel leaves has no functions
        again = f"pip install --force-reinstall --no-deps {wheels[0]}"
        raise MissingError(f"the package {wheels[0]} cannot be used: {error}", again) from error
    return module


def open_graph(path: Path, threads: int) -> Any:
    """An `InferenceSession` of the graph at `path` on the CPU, with `threads` threads.

    A graph in fp16 for CUDA runs too: ONNX Runtime computes in fp32 where the CPU has no fp16 kernel.

    Raises:
        InputError: there is no graph.
        StepError: ONNX Runtime cannot load it.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such graph")
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no public base class
        raise StepError(f"{path}: ONNX Runtime cannot load it: {str(error).splitlines()[0]}") from error
