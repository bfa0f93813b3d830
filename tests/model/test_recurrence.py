"""The hand-written gradient against autodiff of the plain scan and finite differences."""

import contextlib
import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from charjax.config.model import ModelConfig
from charjax.model.cells import Cell, cell_named, names
from charjax.model.cells.lstm import LSTMState
from charjax.model.parameter import layer as usual_layer
from charjax.model.recurrence import cpu, plain, products, scan
from charjax.model.recurrence.layout import GENERAL

HIDDEN, WIDTH = 4, 5
LAYOUTS = {
    "general": GENERAL,
    "CPU": cpu.ONE_DEVICE,
    "several CPUs": cpu.SEVERAL_DEVICES,
}
run = partial(scan.run, layout=cpu.ONE_DEVICE)
run_plain = plain.run


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
LARGE, SMALL = (9, 3), (1, 1)
CASES = [
    (name, one_hot, shape)
    for name in CELLS
    for one_hot in (False, True)
    for shape in (LARGE, SMALL)
]


def x64() -> contextlib.AbstractContextManager:
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    return jax.experimental.enable_x64()


def arguments(name, steps, rows, *, one_hot=False, dtype=np.float32, seed=0):
    """(layer, inputs, state) of random numbers."""
    random = np.random.default_rng(seed)
    cell = CELLS[name]

    def draw(*shape):
        return jnp.asarray(random.normal(size=shape) * 0.7, dtype)

    parameters = cell.parameters(ModelConfig(hidden_size=HIDDEN), WIDTH, one_hot)
    layer = {name: draw(*parameter.shape) for name, parameter in parameters.items()}
    inputs = draw(steps, rows, WIDTH)
    if one_hot:
        inputs = jnp.asarray(random.integers(WIDTH, size=(steps, rows)), jnp.int32)
    return layer, inputs, cell.state(*(draw(rows, HIDDEN) for _ in cell.state._fields))


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
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("name", "one_hot", "shape"), CASES)
def test_values_and_gradients_equal_the_plain_scan(name, one_hot, shape):
    args = arguments(name, *shape, one_hot=one_hot)
    expected = value_and_gradients(run_plain, name, "float32", args)
    for layout in LAYOUTS.values():
        laid_out = partial(scan.run, layout=layout)
        hand = value_and_gradients(laid_out, name, "float32", args)
        assert_close(hand, expected, 1e-5)


# By row: at the first step, the second, the last, two of them, every one, none.
RESETS = np.zeros((6, 6), bool)
RESETS[0, 0] = RESETS[1, 1] = RESETS[5, 2] = True
RESETS[[2, 4], 3] = RESETS[:, 4] = True


@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_resets_inside_a_window_equal_the_plain_scan(name, one_hot):
    args, reset = arguments(name, 6, 6, one_hot=one_hot), jnp.asarray(RESETS)
    expected = value_and_gradients(partial(run_plain, reset=reset), name, "float32", args)
    for layout in LAYOUTS.values():
        laid_out = partial(scan.run, layout=layout, reset=reset)
        assert_close(value_and_gradients(laid_out, name, "float32", args), expected, 1e-5)
    # What a row was before counts for nothing where it begins again.
    for leaf in map(np.asarray, jax.tree.leaves(expected[1][1])):
        assert not leaf[[0, 4]].any() and leaf[[1, 2, 3, 5]].any()


@pytest.mark.parametrize("name", CELLS)
def test_where_every_step_begins_again_the_hidden_kernel_learns_nothing(name):
    args, reset = arguments(name, 4, 2), jnp.ones((4, 2), bool)
    _, gradients = value_and_gradients(partial(run, reset=reset), name, "float32", args)
    assert not gradients[0]["kernel_h"].any()


@pytest.mark.parametrize("name", CELLS)
def test_a_reset_is_a_new_beginning(name):
    layer, inputs, state = arguments(name, 6, 2)
    reset = jnp.zeros((6, 2), bool).at[4, 1].set(True)
    hidden, last = run(CELLS[name], "float32", layer, inputs, state, reset)
    zero = CELLS[name].initial_state(2, HIDDEN)
    from_zero, from_zero_last = run(CELLS[name], "float32", layer, inputs[4:], zero)
    straight, _ = run(CELLS[name], "float32", layer, inputs, state)
    assert_close(hidden[4:, 1], from_zero[:, 1], 1e-6)
    assert_close(last.h[1], from_zero_last.h[1], 1e-6)
    assert_close(hidden[:4], straight[:4], 1e-6)
    assert_close(hidden[:, 0], straight[:, 0], 1e-6)


@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_gradients_equal_finite_differences_in_float64(name, one_hot):
    with x64():
        args = arguments(name, 3, 2, one_hot=one_hot, dtype=np.float64)
        hand = value_and_gradients(run, name, "float64", args, jnp.float64)
        plain = value_and_gradients(run_plain, name, "float64", args, jnp.float64)
        assert_close(hand, plain, 1e-13)
        layer, inputs, state = args

        def function(layer, state):
            return jax.tree.leaves(run(CELLS[name], "float64", layer, inputs, state))

        check_grads(
            jax.jit(function), (layer, state), 1, ["rev"], atol=1e-7, rtol=1e-7, eps=1e-5
        )


@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_saturated_gates_have_finite_gradients_equal_to_the_plain_scans(name, one_hot):
    layer, inputs, state = arguments(name, 6, 2, one_hot=one_hot)
    args = ({**layer, "bias": layer["bias"] * 200}, inputs, state)
    for dtype in ("float32", "bfloat16"):
        hand = value_and_gradients(run, name, dtype, args)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(hand))
    hand = value_and_gradients(run, name, "float32", args)
    assert_close(hand, value_and_gradients(run_plain, name, "float32", args), 1e-5)


@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_bfloat16_is_close_and_keeps_states_and_gradients_in_float32(name, one_hot):
    args = arguments(name, 8, 3, one_hot=one_hot)
    exact = value_and_gradients(run, name, "float32", args)
    rounded = value_and_gradients(run, name, "bfloat16", args)
    for a, b in zip(jax.tree.leaves(rounded), jax.tree.leaves(exact), strict=True):
        assert a.dtype == jnp.float32
        assert 0 < jnp.linalg.norm(a - b) < 0.03 * jnp.linalg.norm(b)


@pytest.mark.parametrize("name", CELLS)
def test_length_holds_each_rows_state(name):
    layer, inputs, state = arguments(name, 5, 4)
    cell = CELLS[name]
    lengths = jnp.array([5, 1, 3, 0])
    hidden, last = run(cell, "float32", layer, inputs, state, length=lengths)
    for row, length in enumerate(lengths.tolist()):
        part = jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], state)
        alone = inputs[:length, row : row + 1]
        expected_hidden, expected = run_plain(cell, "float32", layer, alone, part)
        actual = jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], last)
        assert_close(actual, expected, 1e-6)
        assert_close(hidden[:length, row : row + 1], expected_hidden, 1e-6)


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_bfloat16_gradients_hold_over_a_long_memory(name):
    # Gates that let nearly everything through, step after step: rounded towards 1, they
    # would let through a different amount each time in the same direction.
    layer, inputs, state = arguments(name, 300, 2)
    if name == "lstm":
        bias = layer["bias"].at[CELLS[name].gates.index("forget")].set(6.0)
    else:
        bias = layer["bias"].at[CELLS[name].gates.index("update")].set(6.0)
    small = {key: 0.05 * value for key, value in layer.items()}
    args = ({**small, "bias": bias}, inputs, state)
    _, exact = value_and_gradients(run, name, "float32", args)
    _, rounded = value_and_gradients(run, name, "bfloat16", args)
    for a, b in zip(jax.tree.leaves(rounded), jax.tree.leaves(exact), strict=True):
        assert jnp.linalg.norm(a - b) < 0.03 * jnp.linalg.norm(b)


def test_second_derivatives_are_right_or_refused():
    layer, inputs, state = arguments("lstm", 3, 2)

    def first(run, dtype, bias):
        def total(bias):
            return run(CELLS["lstm"], dtype, {**layer, "bias": bias}, inputs, state)[
                0
            ].sum()

        return (jax.grad(total)(bias) ** 2).sum()

    hand = jax.grad(lambda bias: first(run, "float32", bias))(layer["bias"])
    plain = jax.grad(lambda bias: first(run_plain, "float32", bias))
    assert_close(hand, plain(layer["bias"]), 1e-4)
    with pytest.raises(TypeError, match="bfloat16"):
        jax.grad(lambda bias: first(run, "bfloat16", bias))(layer["bias"])


@pytest.mark.parametrize("name", CELLS)
def test_no_steps_change_nothing(name):
    layer, inputs, state = arguments(name, 0, 2)
    hidden, last = run(CELLS[name], "float32", layer, inputs, state)
    assert hidden.shape == (0, 2, HIDDEN)
    assert_close(last, state, 0)
    _, gradients = value_and_gradients(run, name, "float32", (layer, inputs, state))
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradients[0]))


def test_forward_mode_is_refused_rather_than_wrong():
    layer, inputs, state = arguments("lstm", 2, 1)

    def function(layer):
        return run(CELLS["lstm"], "float32", layer, inputs, state)

    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(function, (layer,), (layer,))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tail", [(), (2,), (2, 3)], ids=str)
def test_project_equals_a_plain_product(tail, dtype):
    random = np.random.default_rng(1)
    x = jnp.asarray(random.normal(size=(4, 2, 5)), jnp.float32)
    kernel = jnp.asarray(random.normal(size=(5, *tail)), jnp.float32)
    weights = jnp.asarray(random.normal(size=(4, 2, *tail)), jnp.float32)
    project, plain = (
        jax.value_and_grad(lambda x, k, f=f: (f(x, k) * weights).sum(), argnums=(0, 1))
        for f in (
            lambda x, k: products.project(dtype, x, k),
            lambda x, k: jnp.tensordot(x, k, 1, precision="highest"),
        )
    )
    assert products.project(dtype, x, kernel).dtype == jnp.float32
    assert_close(project(x, kernel), plain(x, kernel), 1e-5 if dtype == "float32" else 0.08)


@pytest.mark.parametrize("limit", [100, 6, 0], ids=["below", "at", "above"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tail", [(3,), (2, 3)], ids=str)
def test_lookup_equals_a_one_hot_product(monkeypatch, tail, dtype, limit):
    monkeypatch.setattr(products, "ONE_HOT_LIMIT", limit)
    random = np.random.default_rng(2)
    # Symbols 1 and 4 never occur, others more than once.
    ids = jnp.asarray(random.choice([0, 2, 3, 5], size=(7, 3)), jnp.int32)
    table = jnp.asarray(random.normal(size=(6, *tail)), jnp.float32)
    weights = jnp.asarray(random.normal(size=(7, 3, *tail)), jnp.float32)
    lookup = jax.value_and_grad(lambda t: (products.lookup(dtype, ids, t) * weights).sum())
    plain = jax.value_and_grad(
        lambda t: (jnp.tensordot(jax.nn.one_hot(ids, 6), t, 1) * weights).sum()
    )
    np.testing.assert_array_equal(products.lookup(dtype, ids, table), table[ids])
    assert_close(lookup(table), plain(table), 1e-5 if dtype == "float32" else 0.05)
    assert not lookup(table)[1][jnp.array([1, 4])].any()
