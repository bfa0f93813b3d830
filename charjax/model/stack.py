"""Layers over time: which schedule runs them.

The first layer, whose input has its own width, stands apart; the others are stacked on
a leading axis and scanned, so that the program does not grow with the depth.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

from charjax.model import recurrence
from charjax.model.cells import Cell


def run(
    cell: Cell,
    dtype: DTypeLike,
    first: dict[str, Array],
    rest: dict[str, Array] | None,
    inputs: Array,
    carry: Any,
    *,
    dropout: float = 0.0,
    key: Array | None = None,
    length: Array | None = None,
) -> tuple[Array, Any]:
    """Runs all layers over time.

    Args:
      cell: which cell.
      dtype: type of the matrix operands.
      first: parameters of the first layer: `kernel_x [e, g, h]`, `kernel_h [h, g, h]`,
        `bias [g, h]`, and `bias_h [g, h]` for cells that are not additive.
      rest: the same for the other layers on a leading axis, or None.
      inputs: symbol ids `[t, b]` int32, which the first layer reads one-hot, or
        features `[t, b, e]`.
      carry: states before the first step, leaves `[l, b, h]`.
      dropout: share of each layer's output to drop, the last layer's too.
      key: PRNG key of the dropout; None drops nothing.
      length: steps that count in each row, `[b]`; forward only.

    Returns:
      Output of the last layer `[t, b, h]`, and the states after the last step.
    """

    def layer(params: dict[str, Array], inputs: Array, state: Any, index: Any) -> Any:
        if length is None:
            hidden, state = recurrence.run(cell, dtype, params, inputs, state)
        else:
            hidden, state = recurrence.run_plain(cell, dtype, params, inputs, state, length)
        if key is not None and dropout > 0:
            hidden = drop(hidden, dropout, jax.random.fold_in(key, index))
        return hidden, state

    hidden, state = layer(first, inputs, jax.tree.map(lambda leaf: leaf[0], carry), 0)
    if rest is None:
        return hidden, jax.tree.map(lambda leaf: leaf[None], state)

    def step(hidden: Array, xs: Any) -> tuple[Array, Any]:
        params, state, index = xs
        return layer(params, hidden, state, index)

    others = jax.tree.map(lambda leaf: leaf[1:], carry)
    indices = jnp.arange(1, 1 + rest["bias"].shape[0])
    hidden, states = lax.scan(step, hidden, (rest, others, indices))
    carry = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), state, states)
    return hidden, carry


def drop(x: Array, rate: float, key: Array) -> Array:
    """Inverted dropout of `x` with one random byte an element.

    The rate is rounded to 1/256, and what is kept is scaled by the exact inverse.
    """
    dropped = min(max(round(rate * 256), 1), 255)
    # Four bytes from each 32-bit draw: random bits are the cost of dropout.
    *rows, width = x.shape
    words = jax.random.bits(key, (*rows, -(-width // 4)), jnp.uint32)
    draws = lax.bitcast_convert_type(words, jnp.uint8).reshape(*rows, -1)[..., :width]
    return jnp.where(draws >= dropped, x * (256 / (256 - dropped)), 0.0)
