"""Large blocks go back to the system when they are freed, whatever lies behind them."""

import subprocess
import sys

import pytest

_PROGRAM = """
import ctypes, sys
from lf_export.allocator import return_large_blocks

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

def block(size):
    place = libc.malloc(size)
    ctypes.memset(place, 1, size)
    return place

if sys.argv[1] == "told":
    return_large_blocks()
libc.free(block(24 << 20))  # left to itself glibc takes blocks up to this size from the heap from now on
before = resident()
large = []
for _ in range(8):
    large.append(block(8 << 20))
    block(4096)  # and a small one that stays behind each
for place in large:
    libc.free(place)
print(resident() - before)
"""


@pytest.mark.parametrize(("told", "given_back"), [("told", True), ("left alone", False)])
def test_freed_blocks_leave_the_process_only_where_the_allocator_is_told(told: str, given_back: bool) -> None:
    ran = subprocess.run([sys.executable, "-c", _PROGRAM, told], capture_output=True, text=True, check=True)
    assert (int(ran.stdout) < 8 << 20) == given_back
