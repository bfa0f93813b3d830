"""What the machine can do: one large product and one large copy, measured on the spot."""

import time
from typing import Any

import jax
import jax.numpy as jnp


def floor() -> dict[str, float]:
    """GFLOP/s of a large float32 and bfloat16 product, GB/s of a large copy."""
    size = 2048 if jax.default_backend() == "cpu" else 8192
    found = {}
    for dtype in ("float32", "bfloat16"):
        x = jnp.ones((size, size), dtype)

        @jax.jit
        def product(x: Any) -> Any:
            return jax.lax.dot(x, x, preferred_element_type=jnp.float32)

        found[f"{dtype}_gflops"] = 2e-9 * size**3 / _best(product, x)
    big = jnp.ones(2**26 if size == 2048 else 2**30, jnp.float32)
    copied = jax.jit(lambda x: x + 1)
    found["copy_gbytes"] = 2e-9 * big.nbytes / _best(copied, big)
    return found


def _best(function: Any, argument: Any) -> float:
    times = []
    for _ in range(6):
        begun = time.perf_counter()
        jax.block_until_ready(function(argument))
        times.append(time.perf_counter() - begun)
    return min(times[1:])
