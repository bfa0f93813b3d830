"""Cells as a config asks for them."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from charjax.config.model import ModelConfig
from charjax.model.cells import Cell, Vectors, cell_named
from charjax.model.parameter import Parameter

_SMALLEST_VARIANCE = 1e-5


def cell_of(model: ModelConfig) -> Cell:
    """The cell of a model.

    >>> cell_of(ModelConfig(cell="gru", layer_norm=True)).gates
    ('reset', 'update', 'new')
    """
    return _normalised(model.cell) if model.layer_norm else cell_named(model.cell)


@functools.cache
def _normalised(name: str) -> Cell:
    """A cell with layer normalisation in its gates (Ba et al. 2016, equations 20 to 22):
    each of the two projections is brought to mean 0 and variance 1 over all units and
    gates of its row, and has a gain. What a cell adds to them are its biases.

    JAX differentiates its steps.
    """
    cell = cell_named(name)

    def parameters(config: ModelConfig, width: int, one_hot: bool) -> dict[str, Parameter]:
        own = cell.parameters(config, width, one_hot)
        shape = own["kernel_h"].shape[1:]
        gain = Parameter(shape, jax.nn.initializers.ones, "vector")
        return {**own, "gain_x": gain, "gain_h": gain}

    def step(vectors: Vectors, state: Any, x: Array, h_proj: Array) -> Any:
        x = vectors["gain_x"] * normalised(x)
        return cell.step(vectors, state, x, vectors["gain_h"] * normalised(h_proj))

    return dataclasses.replace(cell, parameters=parameters, step=step, slopes=None)


def normalised(x: Array) -> Array:
    """`[..., g, h]` with mean 0 and variance 1 over its last two axes; 0 stays 0.

    >>> print(normalised(jnp.array([[1.0, 3.0]])).round(2))
    [[-1.  1.]]
    """
    x = x - x.mean((-2, -1), keepdims=True)
    variance = jnp.square(x).mean((-2, -1), keepdims=True)
    return x * jax.lax.rsqrt(variance + _SMALLEST_VARIANCE)
