"""Long short-term memory (Hochreiter and Schmidhuber 1997), with the forget gate of Gers
et al. 2000."""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from charjax.config.model import ModelConfig
from charjax.model.cells import Cell, Gates, Kept, Slopes, Tiles, Vectors, by_gate
from charjax.model.parameter import Parameter, layer


class LSTMState(NamedTuple):
    """Cell `c` and hidden `h`, each `[..., b, h]` float32."""

    c: Array
    h: Array


def _parameters(config: ModelConfig, width: int, one_hot: bool) -> dict[str, Parameter]:
    bias = (0.0, config.forget_bias, 0.0, 0.0)
    return layer(4, config.hidden_size, width, one_hot, bias=bias)


def _keep(
    vectors: Vectors, state: LSTMState, x: Array, h_proj: Array
) -> tuple[LSTMState, Kept]:
    # One tanh over all gates: a sigmoid is a tanh of half the size.
    tanh_gate = jnp.arange(4)[:, None] == 2
    half = jnp.where(tanh_gate, 1.0, 0.5).astype(x.dtype)
    z = x + vectors["bias"] + h_proj
    gates = half * jnp.tanh(half * z) + jnp.where(tanh_gate, 0.0, half)
    i, f, g, o = (gates[..., k, :] for k in range(4))
    c = f * state.c + i * g
    squashed = jnp.tanh(c)
    slopes = jnp.where(tanh_gate, 1 - gates * gates, gates * (1 - gates))
    slopes = slopes * by_gate(g, state.c, i, squashed)
    kept = (slopes, 1 - f, o * (1 - squashed * squashed))
    return LSTMState(c, o * squashed), kept


def _step(vectors: Vectors, state: LSTMState, x: Array, h_proj: Array) -> LSTMState:
    return _keep(vectors, state, x, h_proj)[0]


def _reverse(slopes: Kept, d: LSTMState) -> tuple[LSTMState, Array]:
    gates, forgotten, squash = slopes
    d_c = d.c + d.h * squash
    d_x = by_gate(d_c, d_c, d_c, d.h) * gates
    return LSTMState(d_c - d_c * forgotten, jnp.zeros_like(d.h)), d_x


def _through(slopes: Kept, d_x: Array) -> Array:
    del slopes
    return d_x


def _sigmoid(x: Array) -> Array:
    return 0.5 * jnp.tanh(0.5 * x) + 0.5


def _keep_tiles(
    vectors: Mapping[str, Gates], state: LSTMState, x: Gates, h_proj: Gates
) -> tuple[LSTMState, Kept]:
    z = [a + b + c for a, b, c in zip(x, h_proj, vectors["bias"], strict=True)]
    i, f, g, o = _sigmoid(z[0]), _sigmoid(z[1]), jnp.tanh(z[2]), _sigmoid(z[3])
    c = f * state.c + i * g
    return LSTMState(c, o * jnp.tanh(c)), (i, 1 - f, g, o, state.c)


def _reverse_tiles(kept: Kept, d: LSTMState) -> tuple[LSTMState, Gates]:
    i, forgotten, g, o, before = kept
    f = 1 - forgotten
    squashed = jnp.tanh(f * before + i * g)
    d_c = d.c + d.h * o * (1 - squashed * squashed)
    d_i, d_f = d_c * g * i * (1 - i), d_c * before * f * forgotten
    d_g, d_o = d_c * i * (1 - g * g), d.h * squashed * o * (1 - o)
    return LSTMState(d_c - d_c * forgotten, jnp.zeros_like(d.h)), (d_i, d_f, d_g, d_o)


CELL = Cell(
    gates=("input", "forget", "cell", "output"),
    state=LSTMState,
    parameters=_parameters,
    step=_step,
    slopes=Slopes(
        _keep,
        _reverse,
        _through,
        {"bias": "x"},
        Tiles(_keep_tiles, _reverse_tiles, kept=5),
    ),
)
