"""What is dropped while a model learns, so that it does not rely on it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from charjax.config.model import ModelConfig

# Beside the numbers of the layers, whose outputs they are folded in for.
_KERNELS, _SYMBOLS = 2**31 - 1, 2**31 - 2


class Dropout(NamedTuple):
    """Which shares are dropped; None drops nothing."""

    key: Array
    """PRNG key of a window."""

    outputs: Array | float | None
    """Of what each layer puts out (Srivastava et al. 2014)."""

    locked: bool
    """Whether that is the same at every step of the window (Gal and Ghahramani 2016)."""

    kernels: float | None
    """Of the hidden-to-hidden kernels, once a window (Merity et al. 2018)."""

    symbols: float | None
    """Of the symbols' rows in the input table, once a window (Gal and Ghahramani 2016)."""

    @classmethod
    def of(
        cls, model: ModelConfig, key: Array, outputs: Array | float | None = None
    ) -> "Dropout":
        """What a model drops, with `outputs` instead of a `model.dropout` that is not 0."""
        rate = model.dropout if outputs is None else outputs
        return cls(
            key,
            rate if model.dropout > 0 else None,
            model.locked_dropout,
            model.recurrent_dropout or None,
            model.input_dropout or None,
        )

    def of_output(
        self, hidden: Float[Array, "time batch hidden"], layer: Array | int
    ) -> Float[Array, "time batch hidden"]:
        """What a layer puts out, after dropout."""
        if self.outputs is None:
            return hidden
        key = jax.random.fold_in(self.key, layer)
        return drop(hidden, self.outputs, key, hidden.shape[1:] if self.locked else None)

    def of_kernel(
        self, kernel: Float[Array, "hidden gates hidden"], layer: Array | int
    ) -> Float[Array, "hidden gates hidden"]:
        """A layer's hidden-to-hidden kernel, after dropout."""
        if self.kernels is None:
            return kernel
        key = jax.random.fold_in(jax.random.fold_in(self.key, _KERNELS), layer)
        return drop(kernel, self.kernels, key)

    def of_symbols(
        self, table: Float[Array, "symbols *widths"]
    ) -> Float[Array, "symbols *widths"]:
        """A table with a row for each symbol, some of them zero."""
        if self.symbols is None:
            return table
        key = jax.random.fold_in(self.key, _SYMBOLS)
        kept = drop(jnp.ones(len(table)), self.symbols, key)
        return table * kept.reshape(-1, *[1] * (table.ndim - 1))


def drop(
    x: Float[Array, "*rows width"],
    rate: Array | float,
    key: Array,
    shape: tuple[int, ...] | None = None,
) -> Float[Array, "*rows width"]:
    """Inverted dropout of `x` with one random byte an element, or for each of an array of
    `shape` that is the same along the leading axes.

    The rate, from 0 to below 1, is rounded to 1/256, but above 0 not to 0, and what is kept
    is scaled by the exact inverse. At 0 nothing is dropped.
    """
    rate = jnp.asarray(rate, jnp.float32)
    dropped = jnp.where(rate > 0, jnp.clip(jnp.round(rate * 256), 1, 255), 0)
    # Four bytes from each 32-bit draw: random bits are the cost of dropout.
    *rows, width = x.shape if shape is None else shape
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
