"""What the machine can do: one large product and one large copy, measured on the spot."""

import time
from typing import Any

import jax
import jax.numpy as jnp


def floor() -> dict[str, float]:
    """GFLOP/s of a large product in each precision, GB/s of a large copy."""
    size = 2048 if jax.default_backend() == "cpu" else 8192
    found = {}
    # On a GPU, float32 is what the tensor cores do with it (tf32) unless told otherwise.
    kinds = {"float32": ("float32", "highest"), "bfloat16": ("bfloat16", "default")}
    if jax.default_backend() == "gpu":
        kinds["tf32"] = ("float32", "tensorfloat32")
    for name, (dtype, precision) in kinds.items():
        # Random numbers: a GPU that multiplies ones draws less power and runs faster.
        x = jax.random.normal(jax.random.key(0), (size, size), dtype)

        @jax.jit
        def product(x: Any) -> Any:
            return jax.lax.dot(x, x, preferred_element_type=jnp.float32)

        with jax.default_matmul_precision(precision):
            found[f"{name}_gflops"] = 2e-9 * size**3 / _best(product, x)
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
