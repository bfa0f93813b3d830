"""What the kernels of `triton.py` do in one step, for each cell that they serve.

The compiler takes no slices of an array, so the gates are arrays of their own here, each
`[rows, units]` float32, and the formulas of the cells are written once more.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

Gates = Sequence[Array]
Biases = dict[str, Gates]


class Step(NamedTuple):
    """A cell's step and its reverse, as kernels compute them."""

    carried: str
    """The part of the state that is carried in float32; the hidden state that the products
    take lies beside it in their type."""

    forward: Callable[..., tuple[Array, Array, Gates, Array]]
    """(x, h_proj, biases, carried) -> hidden state, carried, what the reverse step needs:
    an array for each gate, and one more."""

    reverse: Callable[..., tuple[Gates, Gates, Array]]
    """(gates and the array kept, biases, hidden state before, gradient of the hidden state
    after, of what is carried) -> gradients of x, of h_proj, of what was carried."""

    kept_first: bool
    """Whether the array kept is the one carried, which then has a first one too."""


def sigmoid(x: Array) -> Array:
    """The logistic function, by the tanh that there is in hardware."""
    return 0.5 * jnp.tanh(0.5 * x) + 0.5


def _lstm(x: Gates, h_proj: Gates, biases: Biases, c: Array) -> Any:
    z = [one + other for one, other in zip(x, h_proj, strict=True)]
    i, f, g, o = _lstm_gates(z, biases)
    c = f * c + i * g
    return o * jnp.tanh(c), c, z, c


def _lstm_gates(z: Gates, biases: Biases) -> Gates:
    i, f, g, o = (one + bias for one, bias in zip(z, biases["bias"], strict=True))
    return sigmoid(i), sigmoid(f), jnp.tanh(g), sigmoid(o)


def _lstm_reverse(
    z: Gates, c: Array, biases: Biases, h: Array, d_h: Array, d_c: Array
) -> Any:
    del h
    i, f, g, o = _lstm_gates(z, biases)
    squashed = jnp.tanh(f * c + i * g)
    d_c = d_c + d_h * o * (1 - squashed * squashed)
    d = (
        d_c * g * i * (1 - i),
        d_c * c * f * (1 - f),
        d_c * i * (1 - g * g),
        d_h * squashed * o * (1 - o),
    )
    return d, d, d_c * f


def _gru(x: Gates, h_proj: Gates, biases: Biases, h: Array) -> Any:
    kept = (x[0] + h_proj[0], x[1] + h_proj[1], x[2])
    _, z, _, n = _gru_gates(kept, h_proj[2], biases)
    h = n + z * (h - n)
    return h, h, kept, h_proj[2]


def _gru_gates(kept: Gates, inner: Array, biases: Biases) -> Gates:
    x_bias, h_bias = biases["bias"], biases["bias_h"]
    r = sigmoid(kept[0] + x_bias[0] + h_bias[0])
    z = sigmoid(kept[1] + x_bias[1] + h_bias[1])
    inner = inner + h_bias[2]
    return r, z, inner, jnp.tanh(kept[2] + x_bias[2] + r * inner)


def _gru_reverse(
    kept: Gates, inner: Array, biases: Biases, h: Array, d_h: Array, d_carried: Array
) -> Any:
    r, z, inner, n = _gru_gates(kept, inner, biases)
    d_h = d_h + d_carried
    d_n = d_h * (1 - z) * (1 - n * n)
    d_r, d_z = d_n * inner * r * (1 - r), d_h * (h - n) * z * (1 - z)
    return (d_r, d_z, d_n), (d_r, d_z, d_n * r), d_h * z


STEPS = {
    "lstm": Step("c", _lstm, _lstm_reverse, kept_first=True),
    "gru": Step("h", _gru, _gru_reverse, kept_first=False),
}
"""By the names of the cells."""
