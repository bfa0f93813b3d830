"""One layer of random numbers, run and differentiated."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from charjax.config.model import ModelConfig
from charjax.model.cells import Cell, cell_named, names
from charjax.model.cells.lstm import LSTMState
from charjax.model.parameter import layer as usual_layer

HIDDEN, WIDTH = 4, 5


def layer_norm_step(vectors, state, x, h_proj):
    """A layer-norm LSTM (Ba et al. 2016), whose step reduces over the units of a row."""

    def norm(z, gain):
        z = z - z.mean(-1, keepdims=True)
        return gain * z * jax.lax.rsqrt((z * z).mean(-1, keepdims=True) + 1e-5)

    z = norm(x, vectors["gain_x"]) + norm(h_proj, vectors["gain_h"]) + vectors["bias"]
    i, f, g, o = (z[..., k, :] for k in range(4))
    c = jax.nn.sigmoid(f) * state.c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return LSTMState(c, jax.nn.sigmoid(o) * jnp.tanh(c))


def layer_norm_parameters(config, width, one_hot):
    vectors = {"bias": 0.0, "gain_x": 1.0, "gain_h": 1.0}
    return usual_layer(4, config.hidden_size, width, one_hot, **vectors)


CELLS = {name: cell_named(name) for name in names()} | {
    # The same gradient found by JAX.
    "lstm without slopes": dataclasses.replace(cell_named("lstm"), slopes=None),
    "gru without slopes": dataclasses.replace(cell_named("gru"), slopes=None),
    "layer norm": Cell(
        ("input", "forget", "cell", "output"),
        LSTMState,
        layer_norm_parameters,
        layer_norm_step,
    ),
}


def arguments(
    name, steps, rows, *, one_hot=False, dtype=np.float32, seed=0, sizes=(WIDTH, HIDDEN)
):
    """(layer, inputs, state) of random numbers; `sizes` are those of inputs and units."""
    random = np.random.default_rng(seed)
    cell, (width, hidden) = CELLS[name], sizes

    def draw(*shape):
        return random.normal(size=shape) * 0.7

    # As large in larger layers: sums over more of them would only saturate.
    scales = {"kernel_x": (WIDTH / width) ** 0.5, "kernel_h": (HIDDEN / hidden) ** 0.5}
    parameters = cell.parameters(ModelConfig(hidden_size=hidden), width, one_hot)
    layer = {
        name: jnp.asarray(draw(*parameter.shape) * scales.get(name, 1), dtype)
        for name, parameter in parameters.items()
    }
    inputs = jnp.asarray(draw(steps, rows, width), dtype)
    if one_hot:
        inputs = jnp.asarray(random.integers(width, size=(steps, rows)), jnp.int32)
    state = (jnp.asarray(draw(rows, hidden), dtype) for _ in cell.state._fields)
    return layer, inputs, cell.state(*state)


def value_and_gradients(run, name, dtype, args, weights=jnp.float32):
    """All outputs, and gradients of a random linear function of all of them."""
    cell, (layer, inputs, state) = CELLS[name], args
    one_hot = jnp.issubdtype(inputs.dtype, jnp.integer)
    smooth = (layer, state) if one_hot else (layer, state, inputs)

    def scalar(smooth):
        layer, state, *features = smooth
        outputs = run(cell, dtype, layer, *(features or [inputs]), state)
        random = np.random.default_rng(9)
        leaves = jax.tree.leaves(outputs)
        total = sum((leaf * random.normal(size=leaf.shape)).sum() for leaf in leaves)
        return total.astype(weights), outputs

    gradients, outputs = jax.jit(jax.grad(scalar, has_aux=True))(smooth)
    return outputs, gradients


def assert_close(actual, expected, tolerance):
    """The same structure and types, and values to a relative and absolute tolerance."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def error(actual, expected):
    """The largest relative error of a leaf, by norms."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    pairs = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
    return max(float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b)) for a, b in pairs)
