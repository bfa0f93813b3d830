"""Memory that is not there, told in a line."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import jax


class OutOfMemory(MemoryError):
    """A lack of memory of which it is known what would help."""


@contextlib.contextmanager
def told(message: str) -> Iterator[None]:
    """Raises OutOfMemory with this message where JAX or NumPy runs out of memory."""
    try:
        yield
    except OutOfMemory:
        raise
    except MemoryError as error:
        raise OutOfMemory(message) from error
    except jax.errors.JaxRuntimeError as error:
        words = str(error)
        if "RESOURCE_EXHAUSTED" not in words and "Out of memory" not in words:
            raise
        raise OutOfMemory(message) from error


def of_device(device: Any) -> int | None:
    """Bytes of memory that a device has, a CPU device the machine's; None if unknown."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    if device.platform == "cpu" and hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None
