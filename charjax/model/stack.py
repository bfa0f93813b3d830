"""Layers over time.

The first layer, whose input has its own width, stands apart; the others are stacked on
a leading axis and scanned, so that the program does not grow with the depth.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

RunLayer = Callable[[Any, Array, Any, Any], tuple[Array, Any]]
"""(a layer's parameters, its input `[t, b, ...]`, its state, its number) -> hidden, state
after."""


def run(
    run_layer: RunLayer,
    first: dict[str, Array],
    rest: dict[str, Array] | None,
    inputs: Array,
    carry: Any,
    *,
    residual: bool = False,
    summed: bool = False,
    loop_over_one: bool = True,
) -> tuple[Float[Array, "time batch hidden"], Any]:
    """Runs all layers over time.

    Args:
      run_layer: one layer over time, with its recurrence, cell and dropout.
      first: parameters of the first layer.
      rest: the same for the other layers on a leading axis, or None.
      inputs: what the first layer reads, `[t, b]` or `[t, b, e]`.
      carry: states before the first step, leaves `[l, b, h]`.
      residual: adds to the output of each layer but the first what it has read.
      summed: returns the sum of the outputs of all layers instead of the last one's.
      loop_over_one: whether a single other layer is a loop too, which XLA's CPU compiler
        makes 4 % faster at small sizes; on a TPU it costs copies of the parameters.

    Returns:
      Output `[t, b, h]`, and the states after the last step.
    """
    before = jax.tree.map(lambda leaf: leaf[0], carry)
    hidden, state = run_layer(first, inputs, before, 0)
    if rest is None:
        return hidden, jax.tree.map(lambda leaf: leaf[None], state)

    def step(outputs: tuple[Array, Array | None], xs: Any) -> tuple[Any, Any]:
        (below, total), (params, before, index) = outputs, xs
        hidden, after = run_layer(params, below, before, index)
        hidden = below + hidden if residual else hidden
        return (hidden, None if total is None else total + hidden), after

    outputs = hidden, (hidden if summed else None)
    others = jax.tree.map(lambda leaf: leaf[1:], carry)
    count = len(jax.tree.leaves(rest)[0])
    if count == 1 and not loop_over_one:
        params, before = jax.tree.map(lambda leaf: leaf[0], (rest, others))
        outputs, after = step(outputs, (params, before, 1))
        carry = jax.tree.map(lambda a, b: jnp.stack([a, b]), state, after)
    else:
        indices = jnp.arange(1, 1 + count)
        outputs, states = lax.scan(step, outputs, (rest, others, indices))
        carry = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), state, states)
    last, total = outputs
    return (last if total is None else total), carry
