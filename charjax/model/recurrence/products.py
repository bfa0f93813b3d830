"""The products around the recurrence, and rows read by id, with gradients by hand."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Integer

from charjax.model.recurrence.layout import GENERAL, Layout, product

# Above this many symbols a product with one-hot rows costs more than scattering them, and
# above this many elements the one-hot rows take too much memory.
ONE_HOT_LIMIT = 2048
ONE_HOT_ELEMENTS = 2**29


def are_ids(inputs: Array) -> bool:
    """Whether a layer's input is ids rather than features."""
    return jnp.issubdtype(inputs.dtype, jnp.integer)


def read_rows(table: Array, ids: Array) -> Array:
    """Rows of `table [v, ...]` for `ids [...]`; ids beyond it read its last row."""
    return jnp.take(table, ids, axis=0, mode="clip")


def project(
    dtype: DTypeLike,
    x: Float[Array, "*positions width"],
    kernel: Float[Array, "width *widths"],
    layout: Layout = GENERAL,
) -> Float[Array, "..."]:
    """`x [..., e] @ kernel [e, ...]` with operands in `dtype`, result float32.

    The gradient of the kernel is float32 whatever `dtype` is.
    """
    return _project(jnp.dtype(dtype), layout, x, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _project(dtype: Any, layout: Layout, x: Any, kernel: Any) -> Any:
    del layout
    return product(x, kernel, 1, dtype)


def _project_forward(dtype: Any, layout: Layout, x: Any, kernel: Any) -> Any:
    del layout
    x, kernel = x.astype(dtype), kernel.astype(dtype)
    return product(x, kernel, 1, dtype), (x, kernel)


def _project_backward(dtype: Any, layout: Layout, kept: Any, d_y: Any) -> Any:
    x, kernel = kept
    d_x = layout.back(d_y, layout.transposed(kernel), dtype)
    return d_x, layout.weights(x, d_y, dtype)


_project.defvjp(_project_forward, _project_backward)


def lookup(
    dtype: DTypeLike,
    ids: Integer[Array, "*positions"],
    table: Float[Array, "symbols *widths"],
) -> Float[Array, "..."]:
    """Rows of `table [v, ...]` for `ids [...]`: a one-hot product without the product.

    The gradient is a product with the one-hot ids, deterministic on every device; above
    `ONE_HOT_LIMIT` symbols it is a scatter, whose sums a GPU orders as it likes.
    """
    return _lookup(jnp.dtype(dtype), ids, table)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _lookup(dtype: Any, ids: Any, table: Any) -> Any:
    del dtype
    return read_rows(table, ids)


def _lookup_forward(dtype: Any, ids: Any, table: Any) -> Any:
    # An array without elements carries the number of symbols to the reverse pass.
    return _lookup(dtype, ids, table), (ids, jnp.zeros((table.shape[0], 0)))


def _lookup_backward(dtype: Any, kept: Any, d_rows: Any) -> Any:
    return None, add_rows(dtype, kept[1].shape[0], kept[0], d_rows)


_lookup.defvjp(_lookup_forward, _lookup_backward)


def add_rows(dtype: Any, size: int, ids: Array, rows: Array) -> Array:
    """`[size, ...]`: row k is the sum of the `rows [..., ...]` whose id is k."""
    if size > ONE_HOT_LIMIT or size * ids.size > ONE_HOT_ELEMENTS:
        empty = jnp.zeros((size, *rows.shape[ids.ndim :]), rows.dtype)
        return empty.at[ids].add(rows, mode="drop")
    one_hot = jax.nn.one_hot(ids, size, axis=0, dtype=dtype)
    return product(one_hot, rows, ids.ndim, dtype)
