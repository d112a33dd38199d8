"""What oneDNN, which multiplies bf16 on a processor, may keep."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

_CAPACITY = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"


@contextmanager
def no_kernel_cache() -> Iterator[None]:
    """Have oneDNN keep no kernels, where nobody has asked for another number.

    It makes a kernel for each shape of a product, half a megabyte and more of code each, and keeps 1,024 of them:
    memory that grows with the number of lengths among the samples. To make them anew for each layer takes a tenth of
    the pass (SmolLM2-135M, 5,192 tokens). oneDNN reads the setting once, at its first product; a process that has
    made one before keeps what it has.
    """
    if _CAPACITY in os.environ or "DNNL_PRIMITIVE_CACHE_CAPACITY" in os.environ:
        yield
        return
    os.environ[_CAPACITY] = "0"
    try:
        yield
    finally:
        del os.environ[_CAPACITY]
