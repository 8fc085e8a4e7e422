"""Let glibc keep large buffers.

By default glibc gives a buffer above some size back to the system at once, and PyTorch asks for it again at the next
step: the pages are cleared and faulted in anew, which can cost a third of the time on a CPU. Two settings of malloc
(`man mallopt`) keep them in the process instead.
"""

import ctypes
import functools
import os
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
VARIABLES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")


@functools.cache
def keep_large_buffers() -> bool:
    """Set both for this process, once; True where that was done: with glibc, unless the environment has set them."""
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in VARIABLES):
        return False
    mallopt = ctypes.CDLL("libc.so.6").mallopt
    return mallopt(M_MMAP_THRESHOLD, 2**30) == 1 and mallopt(M_TRIM_THRESHOLD, 2**31 - 1) == 1
