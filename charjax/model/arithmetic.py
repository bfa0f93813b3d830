"""Settings of JAX that change what an expression means, as our code means them.

A process may have changed them, by its environment or by `jax.config`, for code of its own.
What holds here holds for the calling thread, and only until the block or call ends.
"""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def usual_promotion() -> Iterator[None]:
    """Types and ranks that differ are promoted, as JAX does by itself; for pure functions,
    whose types follow from their arguments.

    >>> with jax.numpy_rank_promotion("raise"), usual_promotion():
    ...     print((jax.numpy.ones((2, 3)) + jax.numpy.ones(3)).shape)
    (2, 3)
    """
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@contextlib.contextmanager
def own_arithmetic() -> Iterator[None]:
    """As `usual_promotion`, in types of 32 bits, and arrays go to the devices unasked: for
    what computes with a run's own arrays and gives the same bits in every process.

    >>> with jax.enable_x64(True), own_arithmetic():
    ...     print(jax.numpy.ones(3).dtype)
    float32
    """
    with usual_promotion(), jax.enable_x64(False), jax.transfer_guard("allow"):
        yield
