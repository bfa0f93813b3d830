"""LSTM, GRU and tanh RNN as pointwise functions; nothing here knows time or layers.

A cell is its initial state and one pointwise step `(state, x, h_proj) -> state`, where
`x` is the projected input and `h_proj` the projected hidden state, both `[b, g, h]`. The
products that make them belong to `recurrence.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class LSTMState(NamedTuple):
    """State of an LSTM: cell `c` and hidden `h`, each `[..., b, h]` float32."""

    c: Array
    h: Array


class HiddenState(NamedTuple):
    """State of a GRU or RNN: hidden `h`, `[..., b, h]` float32."""

    h: Array


State = LSTMState | HiddenState


@dataclass(frozen=True)
class Cell:
    """What tells one recurrent cell from another."""

    gates: tuple[str, ...]
    """Names of the gates, in the order of the `g` axis of kernels and projections."""

    state: type[Any]
    """`LSTMState` or `HiddenState`."""

    step: Callable[[Any, Array, Array], Any]
    """(state, x [b, g, h], h_proj [b, g, h]) -> state, pointwise."""

    additive: bool
    """Whether `step` reads only the sum x + h_proj, so that one array serves both."""

    def initial_state(self, *shape: int) -> Any:
        """Zeros of the given shape, one buffer for each part of the state."""
        return self.state(*(jnp.zeros(shape, jnp.float32) for _ in self.state._fields))


def _lstm(state: LSTMState, x: Array, h_proj: Array) -> LSTMState:
    # Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000.
    gates = x + h_proj
    i, f, g, o = (gates[..., k, :] for k in range(4))
    c = jax.nn.sigmoid(f) * state.c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return LSTMState(c, jax.nn.sigmoid(o) * jnp.tanh(c))


def _gru(state: HiddenState, x: Array, h_proj: Array) -> HiddenState:
    # Cho et al. 2014 with the reset gate applied after the product (version 1), which
    # is what PyTorch and cuDNN compute.
    r = jax.nn.sigmoid(x[..., 0, :] + h_proj[..., 0, :])
    z = jax.nn.sigmoid(x[..., 1, :] + h_proj[..., 1, :])
    n = jnp.tanh(x[..., 2, :] + r * h_proj[..., 2, :])
    return HiddenState(n + z * (state.h - n))


def _rnn(state: HiddenState, x: Array, h_proj: Array) -> HiddenState:
    # Elman 1990.
    del state
    return HiddenState(jnp.tanh((x + h_proj)[..., 0, :]))


CELLS: dict[str, Cell] = {
    "lstm": Cell(("input", "forget", "cell", "output"), LSTMState, _lstm, additive=True),
    "gru": Cell(("reset", "update", "new"), HiddenState, _gru, additive=False),
    "rnn": Cell(("hidden",), HiddenState, _rnn, additive=True),
}
