"""How much memory a device has, and a shortage of it explained."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import jax

from charjax.errors import OutOfMemory


@contextlib.contextmanager
def explain_shortage(message: str) -> Iterator[None]:
    """Raises OutOfMemory with this message where JAX or NumPy runs out of memory."""
    try:
        yield
    except OutOfMemory:
        raise
    except Exception as error:
        if not is_shortage(error):
            raise
        raise OutOfMemory(message) from error


def is_shortage(error: BaseException) -> bool:
    """Whether an error of Python, NumPy or JAX says that there is not enough memory."""
    if isinstance(error, jax.errors.JaxRuntimeError):
        return "RESOURCE_EXHAUSTED" in str(error) or "Out of memory" in str(error)
    return isinstance(error, MemoryError)


def of_device(device: Any) -> int | None:
    """Bytes of memory that a device has, a CPU device the machine's; None if unknown."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    if device.platform == "cpu" and hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None
