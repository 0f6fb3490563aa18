"""Main memory that tensors give back is kept for the next ones."""

import ctypes
import os
import sys

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # parameters of glibc's `mallopt`
KEPT = 2**31 - 1  # bytes at the end of the heap


def keep_memory() -> bool:
    """Let this process keep memory that is given back; whether its C library can be told so, as glibc can.

    By itself glibc gets every large array from the system, which clears it page by page, and gives it back at
    once. A step on a CPU makes thousands of them, so that a good part of its time goes into clearing. Whoever
    has set glibc's own variables (MALLOC_...) is left alone.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(MMAP_MAX, 0)) and bool(mallopt(TRIM_THRESHOLD, KEPT))
