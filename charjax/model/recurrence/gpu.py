"""A scan for GPUs as XLA compiles for them: few kernels.

At usual sizes a kernel takes no longer than its start, so what counts is how many there
are. The loops do several steps in each round, which are then launched together, and a value
that is both carried and kept needs no copy between two of them. The forward loop keeps the
states alone. The reverse one finds the slopes again from them and from the products of all
hidden states at once, since a pointwise function more in a kernel costs nothing.

Between the kernels features, products and kept states lie in the type of the products; sums
and the states that are carried are float32. A bias is never rounded: the same error at
every step would add up. Reverse mode only; cells without slopes by hand take `scan`.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Integer

from charjax.model.cells import Cell
from charjax.model.recurrence import scan
from charjax.model.recurrence.layout import GENERAL, Layout, product
from charjax.model.recurrence.place import ANYWHERE, Place
from charjax.model.recurrence.plain import Layer, vectors, zeroed
from charjax.model.recurrence.products import add_rows, are_ids, read_rows

# Each step of a round is compiled by itself. Ten would be 2.4 and 3.4 kernels a time step
# rather than 2.8 and 3.8, but take twice as long to compile as `scan` does.
MOST_STEPS_A_ROUND = 5


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
    """What `plain.run` does; one step, or rows of different lengths, are left to `scan`."""
    if cell.slopes is None or length is not None or len(inputs) < 2:
        return scan.run(cell, dtype, layer, inputs, state, reset, length, layout, place)
    return _run(cell, jnp.dtype(dtype), layer, inputs, state, reset)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _run(cell: Cell, dtype: Any, layer: Any, inputs: Any, state: Any, reset: Any) -> Any:
    xs = projected(dtype, layer, inputs)
    states, last = _loop(cell, dtype, layer, xs, state, reset)
    return exact(dtype, states.h), last


def _forward(
    cell: Cell, dtype: Any, layer: Any, inputs: Any, state: Any, reset: Any
) -> Any:
    xs = projected(dtype, layer, inputs)
    states, last = _loop(cell, dtype, layer, xs, state, reset)
    inputs = inputs if are_ids(inputs) else inputs.astype(dtype)
    return (exact(dtype, states.h), last), (layer, inputs, xs, state, reset, states)


def _loop(cell: Cell, dtype: Any, layer: Any, xs: Any, state: Any, reset: Any) -> Any:
    """States after each step in `dtype`, and the last one."""
    given, kernel = vectors(layer), layer["kernel_h"].astype(dtype)
    read = reader(dtype, layer, xs)
    if reset is not None:
        # Each step zeroes what the next one must not see: it is in a register there.
        state = zeroed(state, reset[0])
        reset = jnp.concatenate([reset[1:], jnp.zeros_like(reset[:1])])

    def step(before: Any, x: Any) -> tuple[Any, Any]:
        x, asked = x
        after = cell.step(given, before, read(x), product(before.h, kernel, 1, dtype))
        return zeroed(after, asked), kept(dtype, after)

    last, states = lax.scan(step, state, (xs, reset), unroll=steps_a_round(len(xs)))
    return states, last


def _backward(cell: Cell, dtype: Any, residuals: Any, cotangents: Any) -> Any:
    layer, inputs, xs, state, reset, states = residuals
    d_hidden, d_last = cotangents
    given, kernel = vectors(layer), layer["kernel_h"].astype(dtype)
    read, slopes = reader(dtype, layer, xs), cell.slopes
    assert slopes is not None
    before = states_before(dtype, state, states, reset)
    h_projs = product(before.h, kernel, 1, dtype).astype(dtype)

    def step(d_state: Any, xs: Any) -> tuple[Any, Any]:
        d_h, state, x, h_proj, asked = xs
        state, h_proj = exact(dtype, (state, h_proj))
        _, now = slopes.keep(given, state, read(x), h_proj)
        d_state, d_x = slopes.reverse(now, d_state._replace(h=d_state.h + d_h))
        # Rounded as they are kept, and then used as they were rounded.
        d_x = exact(dtype, kept(dtype, d_x))
        d_h_proj = slopes.through(now, d_x)
        d_h = GENERAL.back(d_h_proj, kernel, dtype)
        gates = (d_x,) if d_h_proj is d_x else (d_x, d_h_proj)
        return zeroed(d_state._replace(h=d_state.h + d_h), asked), kept(dtype, gates)

    read_by_step = (d_hidden, before, xs, h_projs, reset)
    unroll = steps_a_round(len(xs))
    d_state, gates = lax.scan(step, d_last, read_by_step, reverse=True, unroll=unroll)
    d_layer, d_inputs = gradients(cell, dtype, layer, inputs, before.h, gates)
    return d_layer, d_inputs, d_state, None


_run.defvjp(_forward, _backward)


def steps_a_round(steps: int, most: int = MOST_STEPS_A_ROUND) -> int:
    """How many steps a loop does in each round: if it can be, none is left over.

    >>> steps_a_round(100), steps_a_round(64), steps_a_round(97), steps_a_round(64, 10)
    (5, 4, 5, 8)
    """
    dividing = max(n for n in range(1, most + 1) if steps % n == 0)
    return dividing if 2 * dividing > most else most


def kept(dtype: Any, tree: Any) -> Any:
    """A tree in `dtype`."""
    return GENERAL.keep(dtype, tree)


def exact(dtype: Any, tree: Any) -> Any:
    """A tree in float32, or in `dtype` if that is wider."""
    return GENERAL.kept(dtype, tree)


def projected(dtype: Any, layer: Any, inputs: Array) -> Array:
    """What the loops read at each step: projected features `[t, b, g, h]`, or ids."""
    if are_ids(inputs):
        return inputs
    return product(inputs, layer["kernel_x"], 1, dtype).astype(dtype)


def reader(dtype: Any, layer: Any, xs: Array) -> Any:
    """What a step has read -> its projected input, `[b, g, h]` float32."""
    table = layer["kernel_x"].astype(dtype)
    one_hot = are_ids(xs)
    return lambda x: exact(dtype, read_rows(table, x) if one_hot else x)


def states_before(dtype: Any, state: Any, states: Any, reset: Array | None) -> Any:
    """The state before each step, from the first one and those after each step."""

    def before(first: Array, after: Array) -> Array:
        return jnp.concatenate([first[None].astype(dtype), after[:-1]])

    return zeroed(jax.tree.map(before, state, states), reset)


def gradients(
    cell: Cell, dtype: Any, layer: Any, inputs: Any, h: Array, gates: tuple[Array, ...]
) -> tuple[Any, Any]:
    """Gradients of a layer's parameters and of its inputs.

    Args:
      cell: which cell.
      dtype: type of the matrix operands.
      layer: the layer's parameters.
      inputs: features `[t, b, e]` or ids `[t, b]`.
      h: the hidden state before each step, `[t, b, h]`.
      gates: gradients of the projected inputs, and of the projected hidden states where
        they are others; `[t, b, g, h]`.
    """
    assert cell.slopes is not None
    d_x, d_h_proj = gates[0], gates[-1]
    d_layer = {"kernel_h": GENERAL.hidden_weights(h, d_h_proj, dtype)}
    for name, where in cell.slopes.added_to.items():
        d_layer[name] = exact(dtype, d_x if where == "x" else d_h_proj).sum((0, 1))
    if are_ids(inputs):
        size = layer["kernel_x"].shape[0]
        return {**d_layer, "kernel_x": add_rows(dtype, size, inputs, d_x)}, None
    d_layer["kernel_x"] = GENERAL.weights(inputs, d_x, dtype)
    return d_layer, GENERAL.back(d_x, layer["kernel_x"], dtype)
