"""The simple recurrent network (Elman 1990), with tanh."""

from collections.abc import Mapping

import jax.numpy as jnp
from jax import Array

from charjax.config.model import ModelConfig
from charjax.model.cells import Cell, Gates, HiddenState, Kept, Slopes, Tiles, Vectors
from charjax.model.parameter import Parameter, layer


def _parameters(config: ModelConfig, width: int, one_hot: bool) -> dict[str, Parameter]:
    return layer(1, config.hidden_size, width, one_hot, bias=0.0)


def _keep(
    vectors: Vectors, state: HiddenState, x: Array, h_proj: Array
) -> tuple[HiddenState, Kept]:
    del state
    h = jnp.tanh(x + vectors["bias"] + h_proj)
    return HiddenState(h[..., 0, :]), (1 - h * h,)


def _step(vectors: Vectors, state: HiddenState, x: Array, h_proj: Array) -> HiddenState:
    return _keep(vectors, state, x, h_proj)[0]


def _reverse(slopes: Kept, d: HiddenState) -> tuple[HiddenState, Array]:
    return HiddenState(jnp.zeros_like(d.h)), d.h[..., None, :] * slopes[0]


def _through(slopes: Kept, d_x: Array) -> Array:
    del slopes
    return d_x


def _keep_tiles(
    vectors: Mapping[str, Gates], state: HiddenState, x: Gates, h_proj: Gates
) -> tuple[HiddenState, Kept]:
    del state
    h = jnp.tanh(x[0] + h_proj[0] + vectors["bias"][0])
    return HiddenState(h), (1 - h * h,)


def _reverse_tiles(kept: Kept, d: HiddenState) -> tuple[HiddenState, Gates]:
    return HiddenState(jnp.zeros_like(d.h)), (d.h * kept[0],)


CELL = Cell(
    gates=("hidden",),
    state=HiddenState,
    parameters=_parameters,
    step=_step,
    slopes=Slopes(
        _keep,
        _reverse,
        _through,
        {"bias": "x"},
        Tiles(_keep_tiles, _reverse_tiles, kept=1),
    ),
)
