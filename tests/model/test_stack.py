"""Layers over time, the ways between them, and what is dropped."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from charjax.model import stack
from charjax.model.cells import cell_named
from charjax.model.dropout import Dropout, drop
from charjax.model.recurrence import scan


@pytest.mark.parametrize(
    ("rate", "dropped"),
    [(0.5, 128), (0.25, 64), (0.1, 26), (1e-4, 1), (0.999, 255)],
)
def test_drop_has_its_rate_and_the_inverse_scale(rate, dropped):
    x = jnp.full((50, 40, 101), 3.0)
    y = np.asarray(drop(x, rate, jax.random.key(0)))
    expected = dropped / 256
    share = (y == 0).mean()
    assert abs(share - expected) < 5 * (expected * (1 - expected) / y.size) ** 0.5
    np.testing.assert_allclose(y[y != 0], 3.0 / (1 - expected), rtol=1e-6)
    # The bytes of one draw must not go together: neighbours are dropped independently.
    kept = y != 0
    for distance in (1, 2, 3, 4):
        both = (kept[..., distance:] & kept[..., :-distance]).mean()
        assert abs(both - (1 - expected) ** 2) < 0.01


def test_at_a_rate_of_zero_nothing_is_dropped():
    x = jax.random.normal(jax.random.key(1), (64, 64))
    for rate in (0.0, jnp.float32(0)):
        np.testing.assert_array_equal(drop(x, rate, jax.random.key(0)), x)


def constant_layers(count, width):
    """tanh layers that hand on a positive number, so that a zero was dropped."""
    shape = (width, 1, width)
    zeros, ones = jnp.zeros((width, 1, width)), jnp.ones((1, width))
    first = {"kernel_x": zeros, "kernel_h": zeros, "bias": ones}
    handed_on = jnp.eye(width)[:, None]
    rest = {
        "kernel_x": jnp.broadcast_to(handed_on, (count - 1, *shape)),
        "kernel_h": jnp.zeros((count - 1, *shape)),
        "bias": jnp.zeros((count - 1, 1, width)),
    }
    return first, rest if count > 1 else None


def one_layer(cell, drops, params, inputs, state, number):
    hidden, state = scan.run(cell, "float32", params, inputs, state)
    if drops is not None:
        rate, key = drops
        dropout = Dropout(key, rate, locked=False, kernels=None, symbols=None)
        hidden = dropout.of_output(hidden, number)
    return hidden, state


def run_constant(count, dropout, key, steps=20, rows=10, width=32):
    cell = cell_named("rnn")
    carry = cell.initial_state(count, rows, width)
    inputs = jnp.zeros((steps, rows, width))
    layers = constant_layers(count, width)

    def run(key):
        drops = None if key is None else (dropout, key)
        layer = partial(one_layer, cell, drops)
        return stack.run(layer, *layers, inputs, carry)[0]

    return np.asarray(jax.jit(run)(key))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_each_layer_drops_independently_the_last_one_too(count):
    share = (run_constant(count, 0.5, jax.random.key(0)) != 0).mean()
    assert abs(share - 0.5**count) < 0.02


def test_each_step_row_and_key_drops_independently():
    kept = run_constant(1, 0.5, jax.random.key(0)) != 0
    other = run_constant(1, 0.5, jax.random.key(1)) != 0
    for first, second in (
        (kept[1:], kept[:-1]),
        (kept[:, 1:], kept[:, :-1]),
        (kept, other),
    ):
        assert abs((first & second).mean() - 0.25) < 0.02


@pytest.mark.parametrize(("dropout", "seed"), [(0.5, None), (0.0, 0)])
def test_no_dropout_without_a_key_or_a_rate(dropout, seed):
    key = None if seed is None else jax.random.key(seed)
    assert run_constant(2, dropout, key).all()


def test_the_recurrent_state_is_never_dropped():
    cell, (first, rest) = cell_named("rnn"), constant_layers(2, 8)
    inputs, carry = jnp.zeros((3, 2, 8)), cell.initial_state(1, 2, 8)
    layer = partial(one_layer, cell, (0.9, jax.random.key(0)))
    carry = stack.run(layer, first, None, inputs, carry)[1]
    del rest
    np.testing.assert_allclose(carry.h, np.tanh(1.0), rtol=1e-6)
