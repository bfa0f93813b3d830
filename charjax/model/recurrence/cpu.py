"""What XLA's CPU compiler wants arrays to be like; measured in docs/performance.md."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from charjax.model.recurrence.layout import Layout, product


def _keep(dtype: Any, tree: Any) -> Any:
    """bfloat16 as its bits: the compiler writes one step into an array of bfloat16 by way
    of a float32 copy of the whole."""
    if dtype != jnp.bfloat16:
        return tree
    return jax.tree.map(lambda leaf: _bits(leaf.astype(dtype)), tree)


@jax.custom_jvp
def _bits(x: Array) -> Array:
    return lax.bitcast_convert_type(x, jnp.uint16)


@_bits.defjvp
def _refuse_second_derivatives(primals: Any, tangents: Any) -> Any:
    # Bits have no derivative: they would silently count as constants.
    raise TypeError(
        "second derivatives of the recurrence exist in float32 and float64 only: "
        "train.precision is bfloat16."
    )


def _kept(dtype: Any, tree: Any) -> Any:
    if dtype != jnp.bfloat16:
        return tree
    return jax.tree.map(
        lambda leaf: lax.bitcast_convert_type(leaf, dtype).astype(jnp.float32), tree
    )


def _transposed(kernel: Array) -> Array:
    """One copy outside the loop, so that the product inside reads its operand in order."""
    return jnp.moveaxis(kernel, 0, -1)


def _back(d: Array, transposed: Array, dtype: Any) -> Array:
    return product(d, transposed, transposed.ndim - 1, dtype)


def _copied(x: Array, d: Array, dtype: Any) -> Array:
    # Over several axes the compiler makes a transposed copy first. It pays in bfloat16,
    # where reading in place is five times slower (or, with one axis, not implemented), and
    # on several devices an axis that is split over them must not be merged with another.
    return product(jnp.moveaxis(x, -1, 0), d, x.ndim - 1, dtype)


def _merged(x: Array, d: Array, dtype: Any) -> Array:
    positions, widths = x.ndim - 1, d.shape[x.ndim - 1 :]
    if dtype == jnp.bfloat16 and positions > 1:
        return _copied(x, d, dtype)
    # In float32 one merged axis, read in place, is faster.
    exact = jnp.promote_types(dtype, jnp.float32)
    size = math.prod(x.shape[:positions])
    x = x.astype(dtype).astype(exact).reshape(size, x.shape[-1])
    d = d.astype(dtype).astype(exact).reshape(size, math.prod(widths))
    return lax.dot_general(x, d, (((0,), (0,)), ((), ()))).reshape(-1, *widths)


def _columns(h: Array) -> Array:
    return h.T


def _hidden_weights(columns: Array, d: Array, dtype: Any) -> Array:
    return product(columns.swapaxes(0, 1), d, 2, dtype)


ONE_DEVICE = Layout(_keep, _kept, _transposed, _back, _merged, _columns, _hidden_weights)
SEVERAL_DEVICES = Layout(
    _keep, _kept, _transposed, _back, _copied, _columns, _hidden_weights
)
