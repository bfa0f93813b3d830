"""One cell over time, with its gradient by hand.

The input projection happens outside the loop and the loop keeps one product, `h @ W_h`.
Differentiating a plain scan would carry the gradient of `W_h` through the reverse loop
and add to it at every step; here the reverse loop finds only the gradients of the
projections, and the gradient of `W_h` is one product over all steps after it
(Appleyard et al. 2016, section 3). Reverse mode only: `jax.jvp` does not work.

Matrix operands are rounded to `dtype`; sums, states and every gradient are float32.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

from charjax.model.cells import Cell

# Above this many symbols a product with one-hot rows costs more than scattering them.
ONE_HOT_LIMIT = 2048


def run(
    cell: Cell, dtype: DTypeLike, kernel: Array, bias: Array | None, x: Array, state: Any
) -> tuple[Array, Any]:
    """Runs `cell` over time.

    Args:
      cell: which cell.
      dtype: type of the matrix operands, float32 or bfloat16.
      kernel: recurrent kernel `[h, g, h]` float32.
      bias: recurrent bias `[g, h]`, added to `h @ kernel`, or None.
      x: projected inputs `[t, b, g, h]` float32.
      state: the state before the first step, leaves `[b, h]` float32.

    Returns:
      Hidden states `[t, b, h]` and the state after the last step, both float32.
    """
    return _run(cell, jnp.dtype(dtype), kernel, bias, x, state)


def run_plain(
    cell: Cell,
    dtype: DTypeLike,
    kernel: Array,
    bias: Array | None,
    x: Array,
    state: Any,
    length: Array | None = None,
) -> tuple[Array, Any]:
    """`run` as a scan without a gradient of its own: the reference for every kernel.

    With `length` `[b]` int32, a row's state stays what it was after that many steps, so
    that rows of different lengths can share one call.
    """
    recurrent = kernel.astype(dtype)

    def step(carry: tuple[Any, Array], x_t: Array) -> tuple[tuple[Any, Array], Array]:
        state, t = carry
        new = cell.step(state, x_t, _project_state(recurrent, bias, state.h))
        if length is not None:
            keep = (t < length)[:, None]
            new = jax.tree.map(lambda new, old: jnp.where(keep, new, old), new, state)
        return (new, t + 1), new.h

    (state, _), hidden = lax.scan(step, (state, jnp.int32(0)), x)
    return hidden, state


def _project_state(kernel: Array, bias: Array | None, h: Array) -> Array:
    h_proj = _product(h.astype(kernel.dtype), kernel, 1)
    return h_proj if bias is None else h_proj + bias


def _product(x: Array, y: Array, axes: int, *, leading: bool = False) -> Array:
    """Contracts the last `axes` of x (or the leading ones) with the first of y, summing
    in float32 or better."""
    first = range(axes) if leading else range(x.ndim - axes, x.ndim)
    return lax.dot_general(
        x,
        y,
        ((tuple(first), tuple(range(axes))), ((), ())),
        preferred_element_type=jnp.promote_types(x.dtype, jnp.float32),
    )


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _run(cell: Cell, dtype: Any, kernel: Any, bias: Any, x: Any, state: Any) -> Any:
    return run_plain(cell, dtype, kernel, bias, x, state)


def _run_forward(cell: Cell, dtype: Any, kernel: Any, bias: Any, x: Any, state: Any) -> Any:
    recurrent = kernel.astype(dtype)

    def step(state: Any, x_t: Array) -> tuple[Any, Any]:
        h_proj = _project_state(recurrent, bias, state.h)
        # An additive cell needs only the sum again, the others both terms.
        new = cell.step(state, x_t, h_proj)
        return new, (new, x_t + h_proj if cell.additive else h_proj)

    last, (states, gates) = lax.scan(step, state, x)
    kept = (gates,) if cell.additive else (x, gates)
    return (states.h, last), (kernel, bias, state, states, kept)


def _run_backward(cell: Cell, dtype: Any, kept: Any, cotangents: Any) -> Any:
    kernel, bias, state, states, gates = kept
    d_hidden, d_last = cotangents
    # One copy outside the loop, so that the product inside reads its operand in order.
    transposed = kernel.astype(dtype).transpose(1, 2, 0)
    previous = jax.tree.map(
        lambda first, later: jnp.concatenate([first[None], later[:-1]]), state, states
    )

    def pointwise(state: Any, x: Array, h_proj: Any = 0.0) -> Any:
        return cell.step(state, x, h_proj)

    def step(d_state: Any, xs: Any) -> tuple[Any, Any]:
        previous, gates, d_h = xs
        d_state = d_state._replace(h=d_state.h + d_h)
        d_state, *d_gates = jax.vjp(pointwise, previous, *gates)[1](d_state)
        d_h = _product(d_gates[-1].astype(dtype), transposed, 2)
        return d_state._replace(h=d_state.h + d_h), tuple(d_gates)

    d_state, d_gates = lax.scan(step, d_last, (previous, gates, d_hidden), reverse=True)
    d_x, d_proj = d_gates[0], d_gates[-1]
    d_kernel = _product(previous.h.astype(dtype), d_proj.astype(dtype), 2, leading=True)
    d_bias = None if bias is None else d_proj.sum((0, 1))
    return d_kernel, d_bias, d_x, d_state


_run.defvjp(_run_forward, _run_backward)


def project(dtype: DTypeLike, x: Array, kernel: Array) -> Array:
    """`x [..., e] @ kernel [e, ...]` with operands in `dtype`, result float32.

    The gradient of the kernel is float32 whatever `dtype` is.
    """
    return _project(jnp.dtype(dtype), x, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _project(dtype: Any, x: Any, kernel: Any) -> Any:
    return _product(x.astype(dtype), kernel.astype(dtype), 1)


def _project_forward(dtype: Any, x: Any, kernel: Any) -> Any:
    x_rounded, kernel_rounded = x.astype(dtype), kernel.astype(dtype)
    return _product(x_rounded, kernel_rounded, 1), (x_rounded, kernel_rounded)


def _project_backward(dtype: Any, kept: Any, d_y: Any) -> Any:
    x, kernel = kept
    d_y = d_y.astype(dtype)
    widths = kernel.ndim - 1
    # Axes of the result in order, so that the product reads both operands in order.
    d_x = _product(d_y, jnp.moveaxis(kernel, 0, -1), widths)
    return d_x, _product(x, d_y, x.ndim - 1, leading=True)


_project.defvjp(_project_forward, _project_backward)


def lookup(dtype: DTypeLike, ids: Array, table: Array) -> Array:
    """Rows of `table [v, ...]` for `ids [...]`: a one-hot product without the product.

    The gradient is a product with the one-hot ids, deterministic on every device; above
    `ONE_HOT_LIMIT` symbols it is a scatter.
    """
    return _lookup(jnp.dtype(dtype), ids, table)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _lookup(dtype: Any, ids: Any, table: Any) -> Any:
    del dtype
    return table.at[ids].get(mode="clip")


def _lookup_forward(dtype: Any, ids: Any, table: Any) -> Any:
    # An array without elements carries the number of symbols to the reverse pass.
    return _lookup(dtype, ids, table), (ids, jnp.zeros((table.shape[0], 0)))


def _lookup_backward(dtype: Any, kept: Any, d_rows: Any) -> Any:
    ids, vocab_size = kept[0].reshape(-1), kept[1].shape[0]
    d_flat = d_rows.reshape(ids.size, *d_rows.shape[kept[0].ndim :])
    if vocab_size <= ONE_HOT_LIMIT:
        one_hot = jax.nn.one_hot(ids, vocab_size, axis=0, dtype=dtype)
        return None, _product(one_hot, d_flat.astype(dtype), 1)
    empty = jnp.zeros((vocab_size, *d_flat.shape[1:]), jnp.float32)
    return None, empty.at[ids].add(d_flat)


_lookup.defvjp(_lookup_forward, _lookup_backward)
