"""Gated recurrent unit (Cho et al. 2014) with the reset gate applied after the product
(version 1), which is what PyTorch and cuDNN compute."""

from collections.abc import Mapping

import jax.numpy as jnp
from jax import Array

from charjax.config.model import ModelConfig
from charjax.model.cells import (
    Cell,
    Gates,
    HiddenState,
    Kept,
    Slopes,
    Tiles,
    Vectors,
    by_gate,
)
from charjax.model.parameter import Parameter, layer


def _parameters(config: ModelConfig, width: int, one_hot: bool) -> dict[str, Parameter]:
    # bias_h stands inside the product that the reset gate multiplies.
    return layer(3, config.hidden_size, width, one_hot, bias=0.0, bias_h=0.0)


def _sigmoid(x: Array) -> Array:
    return 0.5 * jnp.tanh(0.5 * x) + 0.5


def _keep(
    vectors: Vectors, state: HiddenState, x: Array, h_proj: Array
) -> tuple[HiddenState, Kept]:
    x, h_proj = x + vectors["bias"], h_proj + vectors["bias_h"]
    both = _sigmoid(x[..., :2, :] + h_proj[..., :2, :])
    r, z, inner = both[..., 0, :], both[..., 1, :], h_proj[..., 2, :]
    n = jnp.tanh(x[..., 2, :] + r * inner)
    new = (1 - z) * (1 - n * n)
    slopes = by_gate(new * inner * r * (1 - r), (state.h - n) * z * (1 - z), new)
    return HiddenState(n + z * (state.h - n)), (slopes, r, 1 - z)


def _step(vectors: Vectors, state: HiddenState, x: Array, h_proj: Array) -> HiddenState:
    return _keep(vectors, state, x, h_proj)[0]


def _reverse(slopes: Kept, d: HiddenState) -> tuple[HiddenState, Array]:
    gates, _, renewed = slopes
    return HiddenState(d.h - d.h * renewed), d.h[..., None, :] * gates


def _through(slopes: Kept, d_x: Array) -> Array:
    _, reset, _ = slopes
    one = jnp.ones_like(reset)
    return d_x * by_gate(one, one, reset)


def _keep_tiles(
    vectors: Mapping[str, Gates], state: HiddenState, x: Gates, h_proj: Gates
) -> tuple[HiddenState, Kept]:
    x = tuple(map(jnp.add, x, vectors["bias"]))
    h_proj = tuple(map(jnp.add, h_proj, vectors["bias_h"]))
    r, z, inner = _sigmoid(x[0] + h_proj[0]), _sigmoid(x[1] + h_proj[1]), h_proj[2]
    n = jnp.tanh(x[2] + r * inner)
    new = (1 - z) * (1 - n * n)
    slopes = (new * inner * r * (1 - r), (state.h - n) * z * (1 - z), new)
    return HiddenState(n + z * (state.h - n)), (*slopes, r, 1 - z)


def _reverse_tiles(kept: Kept, d: HiddenState) -> tuple[HiddenState, Gates]:
    *slopes, _, renewed = kept
    return HiddenState(d.h - d.h * renewed), tuple(d.h * slope for slope in slopes)


def _through_tiles(kept: Kept, d_x: Gates) -> Gates:
    return *d_x[:2], d_x[2] * kept[3]


CELL = Cell(
    gates=("reset", "update", "new"),
    state=HiddenState,
    parameters=_parameters,
    step=_step,
    slopes=Slopes(
        _keep,
        _reverse,
        _through,
        {"bias": "x", "bias_h": "h_proj"},
        Tiles(_keep_tiles, _reverse_tiles, 5, _through_tiles, apart=(2,), h_stays=True),
    ),
)
