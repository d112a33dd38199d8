"""Quantization as pure functions: tensors in, tensors out."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lf_export.quant.grid import Scheme
    from lf_export.quant.moments import HeldOut, Moments
    from lf_export.quant.pack import dequantize_stored
    from lf_export.quant.pack_awq import dequantize_awq

__all__ = ["HeldOut", "Moments", "Scheme", "dequantize_awq", "dequantize_stored"]

_HOMES = {
    "HeldOut": "moments",
    "Moments": "moments",
    "Scheme": "grid",
    "dequantize_awq": "pack_awq",
    "dequantize_stored": "pack",
}


def __getattr__(name: str) -> Any:
    """Import a name's module when the name is asked for.

    `ggml` and `ort`, which need no torch, are imported in the processes whose memory the bench measures: torch in them
    was 177 MB that no deployment has.
    """
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
