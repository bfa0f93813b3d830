"""How the C library's allocator treats freed memory; the commands set it, the library not.

XLA's CPU client frees its work space after every step. glibc hands such large blocks back
to the kernel, which gives them out again page by page, each cleared first: 190,000 page
faults a step of the canonical work, a tenth of its time in float32 and a fifth in
bfloat16 (docs/performance.md).
"""

import ctypes
import os

# malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Makes malloc keep what is freed for the next step; says whether it did.

    Process-wide, for glibc only, and not where the user has set malloc up in the
    environment. What has been freed is not given back before the end, and memory asked for
    as zeros is cleared at once, where the kernel would have waited for its first use.
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    # No separate mappings and no arenas of a thread's own, both of which go back when
    # freed; and no trimming of the one heap that is left.
    return bool(
        mallopt(_M_ARENA_MAX, 1)
        and mallopt(_M_MMAP_MAX, 0)
        and mallopt(_M_TRIM_THRESHOLD, -1)
    )
