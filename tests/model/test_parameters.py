"""The table of parameters, and a cell whose recurrence is its own."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from charjax.config.model import ModelConfig
from charjax.config.schema import Config
from charjax.errors import InputError
from charjax.model import parameters, variants
from charjax.model.cells import Cell, HiddenState, cell_named, names
from charjax.model.network import apply, init, initial_carry
from charjax.model.parameter import layer
from charjax.model.recurrence import plain
from charjax.model.recurrence.choose import choose
from charjax.sampling.draw import sample
from charjax.text.batching import Batch
from charjax.training.schedule import resolve
from charjax.training.state import initial_state
from charjax.training.step import eval_step, train_step

VOCAB = 7
initialise = jax.jit(init, static_argnums=(0, 1))


def model(cell="lstm", embedding=None):
    return ModelConfig(cell=cell, num_layers=3, hidden_size=8, embedding_size=embedding)


@pytest.mark.parametrize("cell", names())
@pytest.mark.parametrize("embedding", [None, 5])
def test_the_table_is_the_parameters(cell, embedding):
    config = Config(model=model(cell, embedding))
    params = jax.eval_shape(lambda: init(config, VOCAB, jax.random.key(0)))
    table = parameters.table(config.model, VOCAB)
    shapes = jax.tree.map(lambda parameter: parameter.shape, table)
    assert jax.tree.map(lambda leaf: leaf.shape, params) == shapes
    assert parameters.vocab_size(params) == VOCAB
    decaying = parameters.decaying(config.model)
    assert jax.tree.structure(decaying) == jax.tree.structure(params)
    for group, members in params.items():
        for name, leaf in members.items():
            axes = parameters.matrix_axes(config.model)[group][name]
            one_hot = embedding is None and group == "first" and name == "kernel_x"
            inside = group in ("first", "rest") and name.startswith("kernel")
            if not inside or one_hot:
                assert axes is None
            else:
                assert axes == (leaf.ndim - 3, leaf.ndim - 1)
            assert decaying[group][name] == (not name.startswith("bias"))


@pytest.mark.parametrize("embedding", [None, 5])
def test_operands_are_rounded_once_and_nothing_else_is(embedding):
    config = Config(model=model(embedding=embedding))
    params = initialise(config, VOCAB, jax.random.key(0))
    rounded = parameters.as_operands(config.model, params, "bfloat16")
    found = {
        f"{group}/{name}"
        for group, members in rounded.items()
        for name, leaf in members.items()
        if leaf.dtype == jnp.bfloat16
    }
    expected = {"first/kernel_h", "rest/kernel_x", "rest/kernel_h", "head/kernel"}
    assert found == expected | ({"first/kernel_x"} if embedding else set())


def test_arrays_like_parameters_are_known_by_their_names_at_any_depth():
    table = parameters.table(model(), VOCAB)
    tree = {"a": [{"rest": {"bias": 1}}, {"count": 2, "rest": {"other": 3}}]}
    found = parameters.with_parameters(
        lambda parameter, leaf: (parameter and parameter.role, leaf), table, tree
    )
    assert found["a"][0]["rest"]["bias"] == ("vector", 1)
    assert found["a"][1] == {"count": (None, 2), "rest": {"other": (None, 3)}}


def test_the_choice_is_told_the_platform_and_asks_nobody(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: pytest.fail("asked"))
    monkeypatch.setattr(jax, "devices", lambda: pytest.fail("asked"))
    chosen = {
        (platform, devices): choose(
            platform, model(), (32, 64), "float32", {"data": devices, "model": 1}
        )
        for platform in ("cpu", "gpu", "tpu")
        for devices in (1, 8)
    }
    names = {place: choice.name for place, choice in chosen.items()}
    for (platform, _), name in names.items():
        assert name == {"cpu": "scan", "gpu": "gpu", "tpu": "scan"}[platform]
    layouts = {place: choice.layout for place, choice in chosen.items()}
    assert layouts["gpu", 1] == layouts["tpu", 8] == layouts["gpu", 8]
    assert len({layouts["cpu", 1], layouts["cpu", 8], layouts["gpu", 1]}) == 3
    assert all(choice.reason for choice in chosen.values())


def test_an_implementation_can_be_asked_for_where_it_runs():
    def chosen(name, platform="cpu"):
        asked = dataclasses.replace(model(), recurrence=name)
        return choose(platform, asked, (32, 64), "float32", {"data": 1, "model": 1})

    assert chosen("plain").name == "plain" and chosen("scan", "tpu").name == "scan"
    assert chosen("scan").layout == chosen("auto").layout
    assert chosen("plain").describe(cell_named("lstm")) == "plain, asked for"
    with pytest.raises(InputError, match=r"model\.recurrence is 'tpu': .*'scan'"):
        chosen("tpu", "gpu")


def test_pure_functions_ask_nobody_where_they_run(monkeypatch):
    for name in ("default_backend", "devices", "local_devices", "device_count"):
        monkeypatch.setattr(jax, name, lambda: pytest.fail("asked"))
    config = resolve(Config(model=model()).replace(**{"data.batch_size": 3}), 10)
    ids, counted = np.zeros((3, 6), np.int32), np.ones((3, 6), bool)
    batch = Batch(ids, ids, counted, counted[:, :1])

    def everything(key):
        state = initial_state(config, VOCAB, key)
        scored = eval_step(config, state.params, state.carry, batch)
        drawn = sample(config, state.params, ids, 2, key)
        return train_step(config, state, batch, key), scored, drawn

    jax.eval_shape(everything, jax.random.key(0))


# A minimal gated unit (Zhou et al. 2016) whose gate comes before its second product.


def gated_parameters(config, width, one_hot):
    return layer(2, config.hidden_size, width, one_hot, bias=0.0)


def gated_run(cell, dtype, layer, inputs, state, reset=None, length=None, *_):
    kernel = layer["kernel_h"].astype(dtype)
    xs = jnp.tensordot(inputs.astype(dtype), layer["kernel_x"].astype(dtype), 1)

    def step(state, given):
        x, asked = given
        h = plain.zeroed(state, asked).h
        x = x + layer["bias"]
        f = jax.nn.sigmoid(x[:, 0] + h @ kernel[:, 0])
        new = jnp.tanh(x[:, 1] + (f * h) @ kernel[:, 1])
        h = (1 - f) * h + f * new
        return HiddenState(h), h

    state, hidden = jax.lax.scan(step, state, (xs, reset))
    return hidden, state


GATED = Cell(
    gates=("forget", "new"),
    state=HiddenState,
    parameters=gated_parameters,
    step=lambda *_: pytest.fail("the cell has a recurrence of its own"),
    run=gated_run,
    takes_ids=False,
)


@pytest.mark.parametrize("embedding", [None, 5])
def test_a_cell_may_bring_its_own_recurrence(monkeypatch, embedding):
    def named(name):
        return GATED if name == "rnn" else cell_named(name)

    monkeypatch.setattr(variants, "cell_named", named)
    config = Config(model=model("rnn", embedding))
    # Programs of their own, for which this cell is what has the name.
    params = jax.jit(lambda key: init(config, VOCAB, key))(jax.random.key(0))
    run = jax.jit(functools.partial(apply, config))
    assert params["rest"]["kernel_h"].shape == (2, 8, 2, 8)
    ids = np.random.default_rng(0).integers(VOCAB, size=(3, 6))
    carry = initial_carry(config, 3)
    together, last = run(params, ids, carry)
    reset = np.zeros((3, 6), bool)
    reset[1, 3] = True
    begun, _ = run(params, ids, carry, reset)
    alone = []
    for t in range(6):
        logits, carry = run(params, ids[:, t : t + 1], carry)
        alone.append(logits)
    np.testing.assert_allclose(together, jnp.concatenate(alone, 1), atol=1e-5)
    np.testing.assert_allclose(last.h, carry.h, atol=1e-5)
    np.testing.assert_allclose(begun[0], together[0], atol=1e-6)
    fresh, _ = run(params, ids[:, 3:], initial_carry(config, 3))
    np.testing.assert_allclose(begun[1, 3:], fresh[1], atol=1e-5)
    gradient = jax.grad(
        lambda params: run(params, ids, initial_carry(config, 3))[0][..., 0].sum()
    )(params)
    assert all(leaf.any() for leaf in jax.tree.leaves(gradient))
