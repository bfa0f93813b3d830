"""What the scan with a gradient by hand does beside being equal to the plain one."""

import contextlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from one_layer import CELLS, HIDDEN, arguments, assert_close, value_and_gradients

from charjax.model.recurrence import cpu, plain, scan

run = partial(scan.run, layout=cpu.ONE_DEVICE)
run_plain = plain.run


def x64() -> contextlib.AbstractContextManager:
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    return jax.experimental.enable_x64()


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
