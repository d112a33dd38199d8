"""glibc's allocator, told to give large blocks back."""

import ctypes

_M_MMAP_THRESHOLD = -3
_LARGE = 1 << 20


def return_large_blocks() -> None:
    """Give every block of 1 MB and more pages of its own, which return to the system when it is freed.

    Left to itself glibc raises that limit to the largest block that was freed, up to 32 MB: matrices below it then
    lie in a heap with holes, and a layer's leftovers count beside the next layer's needs. For the whole process; where
    the C library has no such setting nothing changes.

    Source: mallopt(3), `M_MMAP_THRESHOLD`.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
