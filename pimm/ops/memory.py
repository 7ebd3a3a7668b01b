"""How the process gets its memory, which decides the speed of everything small on a CPU."""

import ctypes
import sys

# Parameters of glibc's mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = 2**31 - 1  # bytes: the most that mallopt takes


def reuse_freed_memory():
    """Let the C library keep the memory of freed tensors for the next ones, instead of giving it back to the system.

    Fetching it anew, page by page, takes longer than most operations on it: activations, batch norms and additions of
    a net on a CPU run at twice the speed without. The process does not shrink between peaks. Linux with glibc only;
    elsewhere nothing happens.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)
