"""A scan without a gradient of its own: the reference for every other implementation."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Integer

from charjax.model.cells import Cell, Vectors
from charjax.model.recurrence.layout import GENERAL, Layout, product
from charjax.model.recurrence.place import ANYWHERE, Place
from charjax.model.recurrence.products import are_ids, read_rows

Layer = Mapping[str, Array]

# A GPU launches the kernels of so many steps together.
GPU_STEPS = 8


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
    """Runs one layer over time.

    Args:
      cell: which cell.
      dtype: type of the matrix operands, float32 or bfloat16.
      layer: the layer's parameters: `kernel_x [e, g, h]`, `kernel_h [h, g, h]` and the
        cell's vectors, all float32.
      inputs: features `[t, b, e]`, or ids `[t, b]` of rows of `kernel_x`, which is the
        one-hot product without the product.
      state: the state before the first step, leaves `[b, h]` float32.
      reset: `[t, b]`, where the state becomes zero before a step; None is nowhere.
      length: `[b]`, after how many steps a row's state stays what it is, so that rows of
        different lengths can share one call; None is never.
      layout: how arrays are kept and multiplied.
      place: where it runs.

    Returns:
      Hidden states `[t, b, h]` and the state after the last step, both float32.
    """
    del layout
    xs, gates = projections(dtype, layer, inputs)

    def step(carry: tuple[Any, Array], x: Any) -> tuple[tuple[Any, Array], Array]:
        (before, t), (x, asked) = carry, x
        before = zeroed(before, asked)
        new = cell.step(vectors(layer), before, *gates(x, before.h))
        if length is not None:
            going = (t < length)[:, None]
            new = jax.tree.map(lambda new, old: jnp.where(going, new, old), new, before)
        return (new, t + 1), new.h

    unroll = GPU_STEPS if place.platform == "gpu" else 1
    carry = state, jnp.int32(0)
    (state, _), hidden = lax.scan(step, carry, (xs, reset), unroll=unroll)
    return hidden, state


def vectors(layer: Layer) -> Vectors:
    """What a cell's step is given of a layer's parameters."""
    kernels = ("kernel_x", "kernel_h")
    return {name: value for name, value in layer.items() if name not in kernels}


def projections(
    dtype: DTypeLike, layer: Layer, inputs: Array
) -> tuple[Array, Callable[[Array, Array], tuple[Array, Array]]]:
    """What the loop reads at each step, and (that, h) -> `x` and `h_proj` of the cell."""
    kernel, one_hot = layer["kernel_h"].astype(dtype), are_ids(inputs)
    xs = inputs if one_hot else product(inputs, layer["kernel_x"], 1, dtype)

    def gates(x: Array, h: Array) -> tuple[Array, Array]:
        # Rows are read in the loop: all of them at once would be as large as the gates.
        x = read_rows(layer["kernel_x"], x) if one_hot else x
        return x, product(h, kernel, 1, dtype)

    return xs, gates


def zeroed(state: Any, asked: Array | np.ndarray | None) -> Any:
    """A state, leaves `[..., b, h]`, that is zero in the rows that `asked [b]` names; or
    the states of all steps, leaves `[t, b, h]`, by `asked [t, b]`."""
    if asked is None:
        return state
    return jax.tree.map(lambda leaf: jnp.where(asked[..., None], 0.0, leaf), state)
