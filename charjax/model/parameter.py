"""What one parameter is: everything that anybody asks about it.

A usual layer's are made here too, so that a cell only says what its own are.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

Initial = Callable[[Array, tuple[int, ...], DTypeLike], Array]
"""(key, shape, type) -> values."""


@dataclass(frozen=True)
class Parameter:
    """One array that is learnt; always float32."""

    shape: tuple[int, ...]

    initial: Initial

    role: Literal["operand", "table", "vector"]
    """An operand is rounded to the compute precision in products. The rows of a table are
    read one at a time, as they are. A vector is added or multiplied, and never decays."""

    units: int | None = -1
    """The axis, from the end, of the units or symbols that `parallel.model` splits."""

    inputs: int | None = None
    """The axis, from the end, that `parallel.fsdp` splits; of an operand it is the one that
    a product sums over."""

    symbols: int | None = None
    """The axis, from the end, along which each symbol of the vocabulary has its values."""

    def stacked(self, layers: int) -> "Parameter":
        """The same parameter of several layers, on a leading axis."""

        def initial(key: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
            keys = jax.random.split(key, shape[0])
            return jax.lax.map(lambda key: self.initial(key, self.shape, dtype), keys)

        return dataclasses.replace(self, shape=(layers, *self.shape), initial=initial)


def layer(
    gates: int,
    hidden: int,
    width: int,
    one_hot: bool,
    **vectors: tuple[float, ...] | float,
) -> dict[str, Parameter]:
    """The parameters of a usual layer.

    `kernel_x [e, g, h]` leads from the input, of `width`, to the gates; `kernel_h`
    `[h, g, h]` from the hidden state. Each vector `[g, h]` is given by its initial value,
    one for all gates or one for each.
    """
    # One row is read at a time when the input is one-hot: its fan-in is one, not the size
    # of the vocabulary.
    kernel_x = jax.nn.initializers.normal(1.0 if one_hot else width**-0.5)
    role, symbols = ("table", -3) if one_hot else ("operand", None)
    shape = (width, gates, hidden)
    return {
        "kernel_x": Parameter(shape, kernel_x, role, inputs=-3, symbols=symbols),
        "kernel_h": Parameter((hidden, gates, hidden), _orthogonal, "operand", inputs=-3),
    } | {
        name: Parameter((gates, hidden), _by_gate(values), "vector")
        for name, values in vectors.items()
    }


def _by_gate(values: tuple[float, ...] | float) -> Initial:
    def initial(key: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        del key
        by_gate = jnp.asarray(values, dtype)
        return jnp.broadcast_to(by_gate[..., None], shape)

    return initial


def _orthogonal(key: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """An orthogonal matrix for each gate (Saxe et al. 2014)."""
    keys = jax.random.split(key, shape[1])
    make = jax.nn.initializers.orthogonal()
    # One after the other: XLA's batched decomposition shares out its work among the
    # threads that wait for it, and with several CPU devices may wait for ever.
    matrices = jax.lax.map(lambda key: make(key, (shape[0], shape[2]), dtype), keys)
    return jnp.moveaxis(matrices, 0, 1)
