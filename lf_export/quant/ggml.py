"""llama.cpp's own quantizer: rows of floats in, blocks of a ggml type out.

The C functions are called in the shared library of the `xllamacpp` package (llama.cpp b11549), so a tensor that is
quantized here has the bytes that `llama-quantize` writes.
"""

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib import metadata, util
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lf_export.errors import InputError, MissingError, StepError

LIBRARY_VERSION = "2026.10.11549"
_INSTALL = f"pip install 'lf-export[gguf]' (xllamacpp=={LIBRARY_VERSION})"


@dataclass(frozen=True)
class GgmlType:
    """A storage type of ggml.

    Attributes:
        name: as in GGUF tables.
        id: the number in the file.
        block: elements that one block holds.
        nbytes: bytes of one block.
    """

    name: str
    id: int
    block: int
    nbytes: int

    @property
    def quantized(self) -> bool:
        """Whether rows are stored as blocks with scales."""
        return self.block > 1

    def row_nbytes(self, width: int) -> int:
        """Bytes of a row of `width` elements, a multiple of `block`."""
        return width // self.block * self.nbytes


# ggml/include/ggml.h and ggml-common.h; checked against the gguf package in tests/reference.
TYPES = {
    kind.name: kind
    for kind in (
        GgmlType("F32", 0, 1, 4),
        GgmlType("F16", 1, 1, 2),
        GgmlType("Q4_0", 2, 32, 18),
        GgmlType("Q4_1", 3, 32, 20),
        GgmlType("Q5_0", 6, 32, 22),
        GgmlType("Q5_1", 7, 32, 24),
        GgmlType("Q8_0", 8, 32, 34),
        GgmlType("Q2_K", 10, 256, 84),
        GgmlType("Q3_K", 11, 256, 110),
        GgmlType("Q4_K", 12, 256, 144),
        GgmlType("Q5_K", 13, 256, 176),
        GgmlType("Q6_K", 14, 256, 210),
        GgmlType("IQ2_XXS", 16, 256, 66),
        GgmlType("IQ2_XS", 17, 256, 74),
        GgmlType("IQ3_XXS", 18, 256, 98),
        GgmlType("IQ4_NL", 20, 32, 18),
        GgmlType("IQ3_S", 21, 256, 110),
        GgmlType("IQ2_S", 22, 256, 82),
        GgmlType("IQ4_XS", 23, 256, 136),
        GgmlType("BF16", 30, 1, 2),
    )
}


@cache
def library() -> ctypes.CDLL:
    """The shared library that holds llama.cpp, checked for its version.

    Raises:
        MissingError: xllamacpp is not installed, has another version, or lacks the functions.
    """
    spec = util.find_spec("xllamacpp")
    if spec is None or not spec.submodule_search_locations:
        raise MissingError("the package xllamacpp is not installed, it holds llama.cpp", _INSTALL)
    found = metadata.version("xllamacpp")
    if found != LIBRARY_VERSION:
        message = f"xllamacpp {found} is installed, {LIBRARY_VERSION} is needed: structs differ between versions"
        raise MissingError(message, _INSTALL)
    files = sorted(Path(spec.submodule_search_locations[0]).glob("xllamacpp*.so"))
    if not files:
        raise MissingError("the package xllamacpp has no shared library for this platform", _INSTALL)
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # an abort of ggml starts a debugger otherwise
    try:
        handle = ctypes.CDLL(str(files[0]))
        _declare(handle)
    except (OSError, AttributeError) as error:
        message = f"the shared library of xllamacpp cannot be used: {error}"
        raise MissingError(message, "apt-get install libgomp1") from error
    return handle


def _declare(handle: ctypes.CDLL) -> None:
    # ggml_quantize_chunk(type, src, dst, start, nrows, n_per_row, imatrix) -> bytes written
    chunk = handle.ggml_quantize_chunk
    chunk.restype = ctypes.c_size_t
    chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p]
    handle.ggml_validate_row_data.restype = ctypes.c_bool
    handle.ggml_validate_row_data.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
    handle.ggml_quantize_init.restype = None
    handle.ggml_quantize_init.argtypes = [ctypes.c_int]


def quantize(
    W: npt.NDArray[np.float32], kind: GgmlType, importance: npt.NDArray[np.float32] | None = None, threads: int = 1
) -> npt.NDArray[np.uint8]:
    """Quantize the rows of `W` to `kind`.

    Rows are independent: a matrix quantized in pieces has the same bytes as in one. The interpreter's lock is released
    meanwhile, so that threads can take pieces.

    Args:
        W: [rows, width], finite.
        kind: a quantized type whose block divides the width.
        importance: the weight of each column's squared error, [width] (llama.cpp's importance matrix).
        threads: how many pieces are quantized at a time.

    Returns:
        [rows, bytes of a row].

    Raises:
        InputError: the width does not divide.
        StepError: the result is not valid (scales that are not finite).
    """
    rows, width = W.shape
    if width % kind.block:
        raise InputError(f"a width of {width} is not a multiple of {kind.block}, the block of {kind.name}")
    if importance is not None and importance.shape != (width,):
        raise InputError(f"the importance of {importance.shape} columns is given for a width of {width}")
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            return np.concatenate(
                list(pool.map(lambda rows: quantize(rows, kind, importance), np.array_split(W, threads)))
            )
    lib = library()
    lib.ggml_quantize_init(kind.id)
    W = np.ascontiguousarray(W, np.float32)
    weights = None if importance is None else np.ascontiguousarray(importance, np.float32)
    out = np.empty((rows, kind.row_nbytes(width)), np.uint8)
    pointer = None if weights is None else weights.ctypes.data
    written = lib.ggml_quantize_chunk(kind.id, W.ctypes.data, out.ctypes.data, 0, rows, width, pointer)
    if written != out.nbytes or not lib.ggml_validate_row_data(kind.id, out.ctypes.data, out.nbytes):
        raise StepError(f"llama.cpp's quantizer gave no valid {kind.name} data for rows of {width} elements")
    return out
