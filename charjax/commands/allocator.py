"""How the C library's allocator treats freed memory: set by the commands, not the library.

XLA's CPU client frees its work space after every step. glibc returns such large blocks to
the kernel, which hands them out again page by page, each cleared first: 190,000 page
faults a step of the canonical work, a tenth of its time in float32 and a fifth in bfloat16
(docs/performance.md).
"""

import ctypes
import os

# malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Makes malloc keep what is freed for the next step; returns whether it does.

    For the whole process, with glibc only, and not where the user has configured malloc in
    the environment. Freed memory is not returned before the end, and zeroed memory is
    cleared at once, where the kernel would wait for its first use.
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
