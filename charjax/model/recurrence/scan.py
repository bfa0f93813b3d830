"""A scan with its gradient by hand.

The input projection happens outside the loop, which keeps one product, `h @ W_h`; for
ids it is the reading of a row, inside it. Differentiating the plain scan would carry the
gradient of `W_h` through the reverse loop and add to it at every step; here the reverse
loop finds only the gradients of the gates, and the gradient of each kernel is one product
over all steps after it (Appleyard et al. 2016, section 3). Reverse mode only: `jax.jvp`
does not work.

Matrix operands are rounded to `dtype`, and so is what the loops keep: the slopes of the
forward one, the gate gradients of the reverse one. Sums, states and the gradients of
parameters, inputs and states are float32. Where a cell brings no gradient by hand, what its
step was given is kept instead, in float32, and JAX differentiates each step.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Integer

from charjax.model.cells import Cell, Vectors
from charjax.model.recurrence import plain
from charjax.model.recurrence.layout import GENERAL, Layout
from charjax.model.recurrence.place import ANYWHERE, Place
from charjax.model.recurrence.plain import Layer, projections, vectors, zeroed
from charjax.model.recurrence.products import add_rows, are_ids


def run(
    cell: Cell,
    dtype: DTypeLike,
    layer: Layer,
    inputs: Float[Array, "time batch width"] | Integer[Array, "time batch"],
    state: Any,
    reset: Bool[Array, "time batch"] | None = None,
    length: Integer[Array, " batch"] | None = None,
    layout: Layout = GENERAL,
    place: Place = ANYWHERE,
) -> tuple[Float[Array, "time batch hidden"], Any]:
    """What `plain.run` does, which serves rows of different lengths itself."""
    if length is not None or inputs.shape[0] == 0:
        return plain.run(cell, dtype, layer, inputs, state, reset, length, layout, place)
    return _run(cell, jnp.dtype(dtype), layout, layer, inputs, state, reset)


class _Gradient(NamedTuple):
    """A step and its reverse."""

    keep: Callable[..., Any]
    """(vectors, state, x, h_proj) -> state after, what the reverse needs."""

    reverse: Callable[..., Any]
    """(vectors, kept, gradient of the state after) -> gradient of the state before but for
    what went through h_proj, gate gradients, gradients of the vectors found on the way."""

    both: Callable[..., tuple[Array, Array]]
    """(kept, gate gradients) -> gradients of x and of h_proj; any axes before `[g, h]`."""


def _gradient(cell: Cell) -> _Gradient:
    slopes = cell.slopes
    if slopes is None:
        return _derived(cell)

    def reverse(given: Vectors, kept: Any, d: Any) -> Any:
        d_state, d_x = slopes.reverse(kept, d)
        return d_state, (d_x,), {}

    def both(kept: Any, gates: tuple[Array, ...]) -> tuple[Array, Array]:
        return gates[0], slopes.through(kept, gates[0])

    return _Gradient(slopes.keep, reverse, both)


def _derived(cell: Cell) -> _Gradient:
    def keep(given: Vectors, *before: Any) -> Any:
        return cell.step(given, *before), before

    def reverse(given: Vectors, kept: Any, d: Any) -> Any:
        d_given, d_state, *gates = jax.vjp(cell.step, given, *kept)[1](d)
        return d_state, tuple(gates), d_given

    def both(kept: Any, gates: tuple[Array, ...]) -> tuple[Array, Array]:
        return gates[0], gates[1]

    return _Gradient(keep, reverse, both)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _run(
    cell: Cell, dtype: Any, layout: Layout, layer: Any, inputs: Any, state: Any, reset: Any
) -> Any:
    return plain.run(cell, dtype, layer, inputs, state, reset, layout=layout)


def _forward(
    cell: Cell, dtype: Any, layout: Layout, layer: Any, inputs: Any, state: Any, reset: Any
) -> Any:
    xs, gates = projections(dtype, layer, inputs)
    given, gradient = vectors(layer), _gradient(cell)

    def step(state: Any, x: Any) -> tuple[Any, Any]:
        x, asked = x
        state = zeroed(state, asked)
        after, kept = gradient.keep(given, state, *gates(x, state.h))
        columns = layout.keep(dtype, layout.columns(state.h))
        return after, (after.h, columns, layout.keep(_kept_in(cell, dtype), kept))

    last, (hidden, columns, kept) = lax.scan(step, state, (xs, reset))
    inputs = inputs if are_ids(inputs) else inputs.astype(dtype)
    return (hidden, last), (layer, inputs, reset, columns, kept)


def _kept_in(cell: Cell, dtype: Any) -> Any:
    return jnp.promote_types(dtype, jnp.float32) if cell.slopes is None else dtype


def _backward(cell: Cell, dtype: Any, layout: Layout, kept: Any, cotangents: Any) -> Any:
    layer, inputs, reset, columns, kept = kept
    d_hidden, d_last = cotangents
    given, gradient, kept_in = vectors(layer), _gradient(cell), _kept_in(cell, dtype)
    transposed = layout.transposed(layer["kernel_h"].astype(dtype))
    exact = jnp.promote_types(dtype, jnp.float32)

    def step(k: Array, carry: Any) -> Any:
        t, (d_state, d_gates, d_given) = len(d_hidden) - 1 - k, carry
        d_h, now, asked = _at(t, (d_hidden, kept, reset))
        now = layout.kept(kept_in, now)
        d_after = d_state._replace(h=d_state.h + d_h)
        d_state, d_gates_t, d_given_t = gradient.reverse(given, now, d_after)
        # Written before it is read, or XLA computes it once for each of the two.
        d_gates = jax.tree.map(
            lambda all_steps, one: lax.dynamic_update_index_in_dim(all_steps, one, t, 0),
            d_gates,
            layout.keep(dtype, d_gates_t),
        )
        d_h_proj = gradient.both(now, layout.kept(dtype, _at(t, d_gates)))[1]
        d_h = layout.back(d_h_proj, transposed, dtype)
        d_state = zeroed(d_state._replace(h=d_state.h + d_h), asked)
        return d_state, d_gates, jax.tree.map(jnp.add, d_given, d_given_t)

    empty = jnp.zeros((*d_hidden.shape[:2], *layer["kernel_h"].shape[1:]), exact)
    d_gates = layout.keep(dtype, (empty,) if cell.slopes else (empty, empty))
    d_given = {} if cell.slopes else jax.tree.map(jnp.zeros_like, given)
    d_state, d_gates, d_given = lax.fori_loop(
        0, len(d_hidden), step, (d_last, d_gates, d_given)
    )
    d_x, d_h_proj = gradient.both(layout.kept(kept_in, kept), layout.kept(dtype, d_gates))
    columns = layout.kept(dtype, columns)
    d_layer = dict(d_given, kernel_h=layout.hidden_weights(columns, d_h_proj, dtype))
    if cell.slopes is not None:
        for name, where in cell.slopes.added_to.items():
            d_layer[name] = (d_x if where == "x" else d_h_proj).sum((0, 1))
    if are_ids(inputs):
        size = layer["kernel_x"].shape[0]
        d_layer["kernel_x"], d_inputs = add_rows(dtype, size, inputs, d_x), None
    else:
        d_layer["kernel_x"] = layout.weights(inputs, d_x, dtype)
        d_inputs = layout.back(d_x, layout.transposed(layer["kernel_x"]), dtype)
    return d_layer, d_inputs, d_state, None


_run.defvjp(_forward, _backward)


def _at(t: Array, tree: Any) -> Any:
    """Step `t` of each leaf."""
    return jax.tree.map(
        lambda leaf: lax.dynamic_index_in_dim(leaf, t, keepdims=False), tree
    )
