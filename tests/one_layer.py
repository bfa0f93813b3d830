"""One layer of random numbers, run and differentiated."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from charjax.config.model import ModelConfig
from charjax.model.cells import cell_named, names
from charjax.model.variants import cell_of

HIDDEN, WIDTH = 4, 5


CELLS = {
    **{name: cell_named(name) for name in names() if cell_named(name).run is None},
    # The same gradient found by JAX.
    "lstm without slopes": dataclasses.replace(cell_named("lstm"), slopes=None),
    "gru without slopes": dataclasses.replace(cell_named("gru"), slopes=None),
    "layer norm": cell_of(ModelConfig(layer_norm=True)),
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


@functools.cache
def outputs_of(run, name):
    """`run` of a cell in float32, as one program for each shape."""
    return jax.jit(functools.partial(run, CELLS[name], "float32"))


@functools.cache
def _differentiated(run, name, dtype, weights):
    """The program of `value_and_gradients`: tests that differ in numbers share it."""

    def scalar(smooth, ids, reset):
        layer, state, *features = smooth
        given = {} if reset is None else {"reset": reset}
        outputs = run(CELLS[name], dtype, layer, *(features or [ids]), state, **given)
        random = np.random.default_rng(9)
        leaves = jax.tree.leaves(outputs)
        total = sum((leaf * random.normal(size=leaf.shape)).sum() for leaf in leaves)
        return total.astype(weights), outputs

    return jax.jit(jax.grad(scalar, has_aux=True))


def value_and_gradients(run, name, dtype, args, weights=jnp.float32, reset=None):
    """All outputs, and gradients of a random linear function of all of them."""
    layer, inputs, state = args
    ids = inputs if jnp.issubdtype(inputs.dtype, jnp.integer) else None
    smooth = (layer, state) if ids is not None else (layer, state, inputs)
    program = _differentiated(run, name, dtype, weights)
    gradients, outputs = program(smooth, ids, reset)
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
