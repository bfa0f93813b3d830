"""What is dropped of kernels, symbols and outputs, and how long the same is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from charjax import Config, InputError, ModelConfig, TrainConfig, apply, init, initial_carry
from charjax.model.dropout import Dropout

KEY = jax.random.key(0)
run = jax.jit(apply, static_argnums=0)


def nothing_but(**rates):
    off = {"outputs": None, "locked": False, "kernels": None, "symbols": None}
    return Dropout(KEY, **{**off, **rates})


@functools.cache
def small(**fields):
    return Config(model=ModelConfig(num_layers=2, hidden_size=8, dropout=0.0, **fields))


def given(config):
    ids = np.random.default_rng(0).integers(5, size=(4, 6))
    return init(config, 5, KEY), ids, initial_carry(config, 4)


def test_locked_the_same_units_are_dropped_at_every_step_and_others_in_each_row():
    ones, dropout = jnp.ones((7, 40, 64)), nothing_but(outputs=0.5, locked=True)
    kept = np.asarray(dropout.of_output(ones, 0))
    assert set(np.unique(kept)) == {0.0, 2.0}
    assert (kept == kept[0]).all()
    assert abs((kept[0] > 0).mean() - 0.5) < 0.05
    assert (kept[0, 0] != kept[0, 1]).any()
    assert (dropout.of_output(ones, 1) != kept).any()


def test_weights_are_dropped_one_by_one_and_differently_in_each_layer():
    kernel, dropout = jnp.ones((32, 4, 32)), nothing_but(kernels=0.25)
    dropped = np.asarray(dropout.of_kernel(kernel, 0))
    assert abs((dropped == 0).mean() - 0.25) < 0.03
    np.testing.assert_allclose(dropped[dropped > 0], 4 / 3, rtol=1e-6)
    assert (dropout.of_kernel(kernel, 1) != dropped).any()


def test_symbols_are_dropped_whole():
    table, dropout = jnp.ones((400, 4, 3)), nothing_but(symbols=0.25)
    rows = np.asarray(dropout.of_symbols(table)).reshape(400, -1)
    assert (rows == rows[:, :1]).all()
    assert abs((rows[:, 0] == 0).mean() - 0.25) < 0.1


@pytest.mark.parametrize(
    "fields",
    [
        {"recurrent_dropout": 0.5, "cell": "lstm"},
        {"recurrent_dropout": 0.5, "cell": "gru"},
        {"input_dropout": 0.5, "cell": "rnn"},
        {"input_dropout": 0.5, "embedding_size": 8, "tied": True},
    ],
)
def test_each_works_while_training_alone_and_by_the_key(fields):
    config = small(**fields)
    params, ids, carry = given(config)
    off = small(**{n: v for n, v in fields.items() if "dropout" not in n})
    plain = run(off, params, ids, carry, None, KEY)[0]
    np.testing.assert_array_equal(run(config, params, ids, carry)[0], plain)
    one, again, other = (
        run(config, params, ids, carry, None, jax.random.key(seed))[0] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert (one != other).any() and (one != plain).any()


def test_a_dropped_symbol_reads_as_nothing_and_does_not_learn():
    config = small(input_dropout=0.9)
    params, _, carry = given(config)
    ids = np.tile(np.arange(4)[:, None], (1, 3))

    def score(params, key):
        return run(config, params, ids, carry, None, key)[0].var(-1).sum()

    learnt = jax.grad(score)(params, KEY)["first"]["kernel_x"]
    moved = np.asarray(learnt != 0).any((1, 2))
    kept = np.asarray(nothing_but(symbols=0.9).of_symbols(jnp.ones((5, 1))))[:, 0] > 0
    np.testing.assert_array_equal(moved[:4], kept[:4])
    assert not moved.all()


def test_a_dropped_weight_does_not_learn():
    config = small(recurrent_dropout=0.5)
    params, ids, carry = given(config)
    carry = jax.tree.map(jnp.ones_like, carry)

    def score(params):
        return run(config, params, ids, carry, None, KEY)[0].var(-1).sum()

    learnt = jax.grad(score)(params)["first"]["kernel_h"]
    kept = nothing_but(kernels=0.5).of_kernel(jnp.ones_like(learnt), 0) > 0
    np.testing.assert_array_equal(learnt != 0, kept)


def test_a_head_that_cannot_be_the_embedding_is_refused():
    with pytest.raises(InputError, match=r"model\.tied.*embedding_size \(now None\)"):
        ModelConfig(tied=True)
    with pytest.raises(InputError, match="now 8"):
        ModelConfig(tied=True, embedding_size=8)
    assert ModelConfig(tied=True, embedding_size=256).shape["tied"]


def test_precision_and_dropout_go_together():
    config = small(recurrent_dropout=0.5, input_dropout=0.1)
    half = Config(model=config.model, train=TrainConfig(precision="bfloat16"))
    params, ids, carry = given(config)
    exact, rounded = (run(c, params, ids, carry, None, KEY)[0] for c in (config, half))
    assert rounded.dtype == jnp.float32
    np.testing.assert_allclose(rounded, exact, atol=0.05)
