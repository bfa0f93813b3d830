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

RunLayer = Callable[[Any, Array, Any], tuple[Array, Any]]
"""(a layer's parameters, its input `[t, b, ...]`, its state) -> hidden, state after."""

Dropout = tuple[Array | float, Array]
"""The share to drop, and the PRNG key."""


def run(
    run_layer: RunLayer,
    first: dict[str, Array],
    rest: dict[str, Array] | None,
    inputs: Array,
    carry: Any,
    dropout: Dropout | None = None,
    loop_over_one: bool = True,
) -> tuple[Float[Array, "time batch hidden"], Any]:
    """Runs all layers over time.

    Args:
      run_layer: one layer over time, with its recurrence and cell.
      first: parameters of the first layer.
      rest: the same for the other layers on a leading axis, or None.
      inputs: what the first layer reads, `[t, b]` or `[t, b, e]`.
      carry: states before the first step, leaves `[l, b, h]`.
      dropout: drops a share of each layer's output, the last layer's too; None does not.
      loop_over_one: whether a single other layer is a loop too, which XLA's CPU compiler
        makes 4 % faster at small sizes; on a TPU it costs copies of the parameters.

    Returns:
      Output of the last layer `[t, b, h]`, and the states after the last step.
    """

    def layer(params: dict[str, Array], inputs: Array, state: Any, index: Any) -> Any:
        hidden, state = run_layer(params, inputs, state)
        if dropout is not None:
            rate, key = dropout
            hidden = drop(hidden, rate, jax.random.fold_in(key, index))
        return hidden, state

    hidden, state = layer(first, inputs, jax.tree.map(lambda leaf: leaf[0], carry), 0)
    if rest is None:
        return hidden, jax.tree.map(lambda leaf: leaf[None], state)

    def step(hidden: Array, xs: Any) -> tuple[Array, Any]:
        params, state, index = xs
        return layer(params, hidden, state, index)

    others = jax.tree.map(lambda leaf: leaf[1:], carry)
    count = len(jax.tree.leaves(rest)[0])
    if count == 1 and not loop_over_one:
        params, before = jax.tree.map(lambda leaf: leaf[0], (rest, others))
        hidden, after = layer(params, hidden, before, 1)
        return hidden, jax.tree.map(lambda a, b: jnp.stack([a, b]), state, after)
    indices = jnp.arange(1, 1 + count)
    hidden, states = lax.scan(step, hidden, (rest, others, indices))
    carry = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), state, states)
    return hidden, carry


def drop(
    x: Float[Array, "*rows width"], rate: Array | float, key: Array
) -> Float[Array, "*rows width"]:
    """Inverted dropout of `x` with one random byte an element.

    The rate, from 0 to below 1, is rounded to 1/256, but above 0 not to 0, and what is kept
    is scaled by the exact inverse. At 0 nothing is dropped.
    """
    rate = jnp.asarray(rate, jnp.float32)
    dropped = jnp.where(rate > 0, jnp.clip(jnp.round(rate * 256), 1, 255), 0)
    # Four bytes from each 32-bit draw: random bits are the cost of dropout.
    *rows, width = x.shape
    words = jax.random.bits(key, (*rows, -(-width // 4)), jnp.uint32)
    draws = lax.platform_dependent(words, tpu=_side_by_side, default=_in_turn)[..., :width]
    return jnp.where(draws >= dropped.astype(jnp.uint8), x * (256 / (256 - dropped)), 0.0)


def _in_turn(words: Array) -> Array:
    """`[..., n]` words as `[..., 4 * n]` bytes, those of a word next to each other."""
    return lax.bitcast_convert_type(words, jnp.uint8).reshape(*words.shape[:-1], -1)


def _side_by_side(words: Array) -> Array:
    """The first byte of each word, then the second of each: on a TPU bytes next to each
    other would be moved between lanes."""
    return jnp.concatenate([(words >> 8 * k).astype(jnp.uint8) for k in range(4)], -1)
