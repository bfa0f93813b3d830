"""One layer over time, with its gradient by hand.

The input projection happens outside the loop, which keeps one product, `h @ W_h`; for
ids it is the reading of a row, inside it.
Differentiating a plain scan would carry the gradient of `W_h` through the reverse loop
and add to it at every step; here the reverse loop finds only the gradients of the gates,
and the gradient of each kernel is one product over all steps after it (Appleyard et al.
2016, section 3). Reverse mode only: `jax.jvp` does not work.

Matrix operands are rounded to `dtype`, and so is what the loops keep: the slopes of the
forward one, the gate gradients of the reverse one. Sums, states and the gradients of
parameters, inputs and states are float32.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

from charjax.model.cells import Cell

# Above this many symbols a product with one-hot rows costs more than scattering them, and
# above this many elements the one-hot rows take too much memory.
ONE_HOT_LIMIT = 2048
ONE_HOT_ELEMENTS = 2**29

Layer = dict[str, Array]


def run(
    cell: Cell, dtype: DTypeLike, layer: Layer, inputs: Array, state: Any
) -> tuple[Array, Any]:
    """Runs one layer over time.

    Args:
      cell: which cell.
      dtype: type of the matrix operands, float32 or bfloat16.
      layer: `kernel_x [e, g, h]`, `kernel_h [h, g, h]`, `bias [g, h]`, and for cells that
        are not additive `bias_h [g, h]`, all float32.
      inputs: features `[t, b, e]`, or ids `[t, b]` of rows of `kernel_x`, which is the
        one-hot product without the product.
      state: the state before the first step, leaves `[b, h]` float32.

    Returns:
      Hidden states `[t, b, h]` and the state after the last step, both float32.
    """
    if inputs.shape[0] == 0:
        return run_plain(cell, dtype, layer, inputs, state)
    return _run(cell, jnp.dtype(dtype), layer, inputs, state)


def run_plain(
    cell: Cell,
    dtype: DTypeLike,
    layer: Layer,
    inputs: Array,
    state: Any,
    length: Array | None = None,
) -> tuple[Array, Any]:
    """`run` as a scan without a gradient of its own: the reference for every kernel.

    With `length` `[b]` int32, a row's state stays what it was after that many steps, so
    that rows of different lengths can share one call.
    """
    xs, gates = _gates(dtype, layer, inputs)

    def step(carry: tuple[Any, Array], x: Array) -> tuple[tuple[Any, Array], Array]:
        state, t = carry
        new = cell.step(state, *gates(x, state.h))
        if length is not None:
            keep = (t < length)[:, None]
            new = jax.tree.map(lambda new, old: jnp.where(keep, new, old), new, state)
        return (new, t + 1), new.h

    (state, _), hidden = lax.scan(step, (state, jnp.int32(0)), xs)
    return hidden, state


def _gates(
    dtype: DTypeLike, layer: Layer, inputs: Array
) -> tuple[Array, Callable[[Array, Array], tuple[Array, Array]]]:
    """What the loop reads at each step, and (that, h) -> both arguments of the cell."""
    kernel, bias_h = layer["kernel_h"].astype(dtype), layer.get("bias_h")
    one_hot = _are_ids(inputs)
    xs = inputs if one_hot else _product(inputs, layer["kernel_x"], 1, dtype)

    def gates(x: Array, h: Array) -> tuple[Array, Array]:
        # Rows are read in the loop: all of them at once would be as large as the gates.
        rows = _rows(layer["kernel_x"], x) if one_hot else x
        h_proj = _product(h, kernel, 1, dtype)
        return rows + layer["bias"], h_proj if bias_h is None else h_proj + bias_h

    return xs, gates


def _are_ids(inputs: Array) -> bool:
    return jnp.issubdtype(inputs.dtype, jnp.integer)


def _rows(table: Array, ids: Array) -> Array:
    return jnp.take(table, ids, axis=0, mode="clip")


def _product(x: Array, y: Array, axes: int, dtype: DTypeLike) -> Array:
    """Contracts the last `axes` of x with the first of y, operands in `dtype`, the sum in
    float32 or better."""
    return lax.dot_general(
        x.astype(dtype),
        y.astype(dtype),
        ((tuple(range(x.ndim - axes, x.ndim)), tuple(range(axes))), ((), ())),
        preferred_element_type=jnp.promote_types(dtype, jnp.float32),
    )


def _over_positions(x: Array, y: Array, dtype: DTypeLike) -> Array:
    """`x [..., e]` and `y [..., *w]` to `[e, *w]`, summed over all positions: the product
    that makes a kernel's gradient."""
    positions, widths = x.ndim - 1, y.shape[x.ndim - 1 :]
    # Over several axes, XLA's CPU compiler makes a transposed copy first. It pays in
    # bfloat16, where reading in place is five times slower (or, with one axis, not
    # implemented). In float32 one merged axis, read in place, is faster; but on several
    # devices an axis that is split over them must not be merged with another.
    if (dtype == jnp.bfloat16 or jax.device_count() > 1) and positions > 1:
        return _product(jnp.moveaxis(x, -1, 0), y, positions, dtype)
    exact = jnp.promote_types(dtype, jnp.float32)
    size = math.prod(x.shape[:positions])
    x = x.astype(dtype).astype(exact).reshape(size, x.shape[-1])
    y = y.astype(dtype).astype(exact).reshape(size, math.prod(widths))
    product = lax.dot_general(x, y, (((0,), (0,)), ((), ())))
    return product.reshape(-1, *widths)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _run(cell: Cell, dtype: Any, layer: Any, inputs: Any, state: Any) -> Any:
    return run_plain(cell, dtype, layer, inputs, state)


def _run_forward(cell: Cell, dtype: Any, layer: Any, inputs: Any, state: Any) -> Any:
    xs, gates = _gates(dtype, layer, inputs)

    def step(state: Any, x: Array) -> tuple[Any, Any]:
        after, slopes = cell.keep(state, *gates(x, state.h))
        return after, (after.h, _pack(dtype, (state.h.T, slopes)))

    last, (hidden, kept) = lax.scan(step, state, xs)
    inputs = inputs if _are_ids(inputs) else inputs.astype(dtype)
    return (hidden, last), (layer, inputs, *kept)


def _run_backward(cell: Cell, dtype: Any, kept: Any, cotangents: Any) -> Any:
    layer, inputs, previous, slopes = kept
    d_hidden, d_last = cotangents
    # One copy outside the loop, so that the product inside reads its operand in order.
    transposed = layer["kernel_h"].astype(dtype).transpose(1, 2, 0)
    steps, shape = d_hidden.shape[0], slopes[0].shape

    def step(k: Array, carry: tuple[Any, Array]) -> tuple[Any, Array]:
        t, (d_state, d_x) = steps - 1 - k, carry
        d_h, *kept = (
            lax.dynamic_index_in_dim(leaf, t, keepdims=False)
            for leaf in (d_hidden, *slopes)
        )
        kept = _unpack(dtype, tuple(kept))
        d_state, d_x_t = cell.reverse(kept, d_state._replace(h=d_state.h + d_h))
        # Written before it is read, or XLA computes it once for each of the two.
        d_x = lax.dynamic_update_index_in_dim(d_x, _pack(dtype, d_x_t), t, 0)
        d_x_t = _unpack(dtype, lax.dynamic_index_in_dim(d_x, t, keepdims=False))
        d_h = _product(cell.through(kept, d_x_t), transposed, 2, dtype)
        return d_state._replace(h=d_state.h + d_h), d_x

    d_x = jnp.zeros(shape, slopes[0].dtype)
    d_state, d_x = lax.fori_loop(0, steps, step, (d_last, d_x))
    d_x, previous = _unpack(dtype, (d_x, previous))
    d_h_proj = cell.through(_unpack(dtype, slopes), d_x)
    d_layer = {
        "kernel_h": _product(previous.swapaxes(0, 1), d_h_proj, 2, dtype),
        "bias": d_x.sum((0, 1)),
    }
    if "bias_h" in layer:
        d_layer["bias_h"] = d_h_proj.sum((0, 1))
    if _are_ids(inputs):
        size = layer["kernel_x"].shape[0]
        d_layer["kernel_x"], d_inputs = _add_rows(dtype, size, inputs, d_x), None
    else:
        d_layer["kernel_x"] = _over_positions(inputs, d_x, dtype)
        d_inputs = _product(d_x, layer["kernel_x"].transpose(1, 2, 0), 2, dtype)
    return d_layer, d_inputs, d_state


_run.defvjp(_run_forward, _run_backward)


def _pack(dtype: Any, tree: Any) -> Any:
    """Leaves in `dtype`, bfloat16 as its bits: XLA's CPU compiler writes one step into
    an array of bfloat16 by way of a float32 copy of the whole."""
    if dtype != jnp.bfloat16:
        return tree
    return jax.tree.map(lambda leaf: _bits(leaf.astype(dtype)), tree)


@jax.custom_jvp
def _bits(x: Array) -> Array:
    return lax.bitcast_convert_type(x, jnp.uint16)


@_bits.defjvp
def _refuse_second_derivatives(primals: Any, tangents: Any) -> Any:
    # Bits have no derivative: they would count as constants, in silence.
    raise TypeError(
        "second derivatives of the recurrence exist in float32 and float64 only: "
        "train.precision is bfloat16."
    )


def _unpack(dtype: Any, tree: Any) -> Any:
    if dtype != jnp.bfloat16:
        return tree
    return jax.tree.map(
        lambda leaf: lax.bitcast_convert_type(leaf, dtype).astype(jnp.float32), tree
    )


def project(dtype: DTypeLike, x: Array, kernel: Array) -> Array:
    """`x [..., e] @ kernel [e, ...]` with operands in `dtype`, result float32.

    The gradient of the kernel is float32 whatever `dtype` is.
    """
    return _project(jnp.dtype(dtype), x, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _project(dtype: Any, x: Any, kernel: Any) -> Any:
    return _product(x, kernel, 1, dtype)


def _project_forward(dtype: Any, x: Any, kernel: Any) -> Any:
    x, kernel = x.astype(dtype), kernel.astype(dtype)
    return _product(x, kernel, 1, dtype), (x, kernel)


def _project_backward(dtype: Any, kept: Any, d_y: Any) -> Any:
    x, kernel = kept
    widths = kernel.ndim - 1
    # Axes of the result in order, so that the product reads both operands in order.
    d_x = _product(d_y, jnp.moveaxis(kernel, 0, -1), widths, dtype)
    return d_x, _over_positions(x, d_y, dtype)


_project.defvjp(_project_forward, _project_backward)


def lookup(dtype: DTypeLike, ids: Array, table: Array) -> Array:
    """Rows of `table [v, ...]` for `ids [...]`: a one-hot product without the product.

    The gradient is a product with the one-hot ids, deterministic on every device; above
    `ONE_HOT_LIMIT` symbols it is a scatter, whose sums a GPU may order anew each time.
    """
    return _lookup(jnp.dtype(dtype), ids, table)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _lookup(dtype: Any, ids: Any, table: Any) -> Any:
    del dtype
    return _rows(table, ids)


def _lookup_forward(dtype: Any, ids: Any, table: Any) -> Any:
    # An array without elements carries the number of symbols to the reverse pass.
    return _lookup(dtype, ids, table), (ids, jnp.zeros((table.shape[0], 0)))


def _lookup_backward(dtype: Any, kept: Any, d_rows: Any) -> Any:
    return None, _add_rows(dtype, kept[1].shape[0], kept[0], d_rows)


_lookup.defvjp(_lookup_forward, _lookup_backward)


def _add_rows(dtype: Any, size: int, ids: Array, rows: Array) -> Array:
    """`[size, ...]`: row k is the sum of the `rows [..., ...]` whose id is k."""
    if size > ONE_HOT_LIMIT or size * ids.size > ONE_HOT_ELEMENTS:
        empty = jnp.zeros((size, *rows.shape[ids.ndim :]), rows.dtype)
        return empty.at[ids].add(rows, mode="drop")
    one_hot = jax.nn.one_hot(ids, size, axis=0, dtype=dtype)
    return _product(one_hot, rows, ids.ndim, dtype)
