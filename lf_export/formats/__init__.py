"""The formats that a checkpoint can be exported to: one module and one line of `FORMATS` each."""

from lf_export.formats import awq, gguf, gptq, onnx
from lf_export.formats.base import ArtifactFacts, Format, FormatOptions, Target

__all__ = ["FORMATS", "ArtifactFacts", "Format", "FormatOptions", "Target"]

FORMATS: dict[str, Format] = {
    "gptq": gptq.FORMAT,
    "gguf": gguf.FORMAT,
    "awq": awq.FORMAT,
    "onnx": onnx.FORMAT,
}
