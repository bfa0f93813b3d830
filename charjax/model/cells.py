"""LSTM, GRU and tanh RNN as pointwise functions; nothing here knows time or layers.

A cell is its initial state and one pointwise step `(state, x, h_proj) -> state`, where
`x` is the projected input and `h_proj` the projected hidden state, both `[b, g, h]`. The
products that make them belong to `recurrence.py`.

The step's gradient is by hand, in two halves. `keep` does the step and keeps its slopes:
the factors of the gradient that are known once the step is done. `reverse` then only
multiplies by them, so that the reverse loop over time has no transcendental in it.

What remains of a state from step to step is kept as the part that does not: rounded to
bfloat16, 1 - f is exact enough near f = 1, where f itself would be off in the same
direction at every step of a long window.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

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
Slopes = tuple[Array, ...]


@dataclass(frozen=True)
class Cell:
    """What tells one recurrent cell from another."""

    gates: tuple[str, ...]
    """Names of the gates, in the order of the `g` axis of kernels and projections."""

    state: type[Any]
    """`LSTMState` or `HiddenState`."""

    keep: Callable[[Any, Array, Array], tuple[Any, Slopes]]
    """(state, x [b, g, h], h_proj [b, g, h]) -> state after, slopes; pointwise."""

    reverse: Callable[[Slopes, Any], tuple[Any, Array]]
    """(slopes, gradient of the state after) -> gradients of the state before, but for
    what went through h_proj, and of x."""

    through: Callable[[Slopes, Array], Array]
    """(slopes, gradient of x) -> gradient of h_proj; any axes before `[g, h]`."""

    additive: bool
    """Whether the step reads only the sum x + h_proj, so that one bias serves both."""

    def step(self, state: Any, x: Array, h_proj: Array) -> Any:
        """(state, x [b, g, h], h_proj [b, g, h]) -> state after."""
        return self.keep(state, x, h_proj)[0]

    def initial_state(self, *shape: int) -> Any:
        """Zeros of the given shape, one buffer for each part of the state."""
        return self.state(*(jnp.zeros(shape, jnp.float32) for _ in self.state._fields))


def _by_gate(*values: Array) -> Array:
    """`[..., h]` for each gate to `[..., g, h]`, as choices rather than a concatenation,
    which fuse with what reads them."""
    gate = jnp.arange(len(values))[:, None]
    result = values[-1][..., None, :]
    for k in reversed(range(len(values) - 1)):
        result = jnp.where(gate == k, values[k][..., None, :], result)
    return result


def _sigmoid(x: Array) -> Array:
    return 0.5 * jnp.tanh(0.5 * x) + 0.5


def _lstm(state: LSTMState, x: Array, h_proj: Array) -> tuple[LSTMState, Slopes]:
    # Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000. One tanh
    # over all gates: a sigmoid is a tanh of half the size.
    tanh_gate = jnp.arange(4)[:, None] == 2
    half = jnp.where(tanh_gate, 1.0, 0.5).astype(x.dtype)
    gates = half * jnp.tanh(half * (x + h_proj)) + jnp.where(tanh_gate, 0.0, half)
    i, f, g, o = (gates[..., k, :] for k in range(4))
    c = f * state.c + i * g
    squashed = jnp.tanh(c)
    slopes = jnp.where(tanh_gate, 1 - gates * gates, gates * (1 - gates))
    slopes = slopes * _by_gate(g, state.c, i, squashed)
    kept = (slopes, 1 - f, o * (1 - squashed * squashed))
    return LSTMState(c, o * squashed), kept


def _lstm_reverse(slopes: Slopes, d: LSTMState) -> tuple[LSTMState, Array]:
    gates, forgotten, squash = slopes
    d_c = d.c + d.h * squash
    d_x = _by_gate(d_c, d_c, d_c, d.h) * gates
    return LSTMState(d_c - d_c * forgotten, jnp.zeros_like(d.h)), d_x


def _gru(state: HiddenState, x: Array, h_proj: Array) -> tuple[HiddenState, Slopes]:
    # Cho et al. 2014 with the reset gate applied after the product (version 1), which
    # is what PyTorch and cuDNN compute.
    both = _sigmoid(x[..., :2, :] + h_proj[..., :2, :])
    r, z, inner = both[..., 0, :], both[..., 1, :], h_proj[..., 2, :]
    n = jnp.tanh(x[..., 2, :] + r * inner)
    new = (1 - z) * (1 - n * n)
    slopes = _by_gate(new * inner * r * (1 - r), (state.h - n) * z * (1 - z), new)
    return HiddenState(n + z * (state.h - n)), (slopes, r, 1 - z)


def _gru_reverse(slopes: Slopes, d: HiddenState) -> tuple[HiddenState, Array]:
    gates, _, renewed = slopes
    return HiddenState(d.h - d.h * renewed), d.h[..., None, :] * gates


def _gru_through(slopes: Slopes, d_x: Array) -> Array:
    _, reset, _ = slopes
    one = jnp.ones_like(reset)
    return d_x * _by_gate(one, one, reset)


def _rnn(state: HiddenState, x: Array, h_proj: Array) -> tuple[HiddenState, Slopes]:
    # Elman 1990.
    del state
    h = jnp.tanh(x + h_proj)
    return HiddenState(h[..., 0, :]), (1 - h * h,)


def _rnn_reverse(slopes: Slopes, d: HiddenState) -> tuple[HiddenState, Array]:
    return HiddenState(jnp.zeros_like(d.h)), d.h[..., None, :] * slopes[0]


def _same(slopes: Slopes, d_x: Array) -> Array:
    del slopes
    return d_x


CELLS: dict[str, Cell] = {
    "lstm": Cell(
        ("input", "forget", "cell", "output"), LSTMState, _lstm, _lstm_reverse, _same, True
    ),
    "gru": Cell(
        ("reset", "update", "new"), HiddenState, _gru, _gru_reverse, _gru_through, False
    ),
    "rnn": Cell(("hidden",), HiddenState, _rnn, _rnn_reverse, _same, True),
}
