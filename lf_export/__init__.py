"""lf-export: ship a function-calling LLM in every format, and prove that it still calls functions."""

from lf_export.api import bench, calibrate, merge, plan, quantize, run
from lf_export.errors import ExportError, InputError, MissingError, StepError
from lf_export.version import __version__

__all__ = [
    "ExportError",
    "InputError",
    "MissingError",
    "StepError",
    "__version__",
    "bench",
    "calibrate",
    "merge",
    "plan",
    "quantize",
    "run",
]
