"""Quantization as pure functions: tensors in, tensors out."""

from lf_export.quant.grid import Scheme
from lf_export.quant.moments import HeldOut, Moments
from lf_export.quant.pack import dequantize_stored
from lf_export.quant.pack_awq import dequantize_awq

__all__ = ["HeldOut", "Moments", "Scheme", "dequantize_awq", "dequantize_stored"]
