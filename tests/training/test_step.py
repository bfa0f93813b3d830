"""train_step against a step written without the library, and its promises."""

import dataclasses
import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from charjax.config.schema import Config
from charjax.devices import mesh as meshes
from charjax.devices import placement
from charjax.model.network import apply, init, initial_carry
from charjax.text.batching import Batch, batch_at
from charjax.training.hyperparameters import Hyperparameters
from charjax.training.schedule import resolve
from charjax.training.state import TrainState, initial_state
from charjax.training.step import cross_entropy, eval_step, train_step

VOCAB, ROWS, STEPS = 7, 8, 5
NAMES = ["adam", "adamw", "rmsprop", "adagrad", "sgd", "lion", "muon"]
RATES = {"sgd": 1.0, "lion": 0.003, "adagrad": 0.1}


def make_config(**fields):
    tiny = {
        "data.batch_size": ROWS,
        "data.sequence_length": STEPS,
        "model.hidden_size": 6,
        "model.num_layers": 2,
        "model.dropout": 0.0,
        "optimizer.learning_rate": 0.02,
        "optimizer.schedule": "constant",
        "optimizer.warmup_steps": 0,
    }
    return resolve(Config().replace(**{**tiny, **fields}), 10)


one_step = jax.jit(train_step, static_argnums=0)


def some_params(config, seed=0):
    """Parameters drawn by NumPy, which needs no compilation."""
    shapes = jax.eval_shape(lambda: init(config, VOCAB, jax.random.key(0)))
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: (random.normal(size=leaf.shape) * leaf.shape[-1] ** -0.5).astype("f4"),
        shapes,
    )


def some_state(config, seed=0):
    """A state with a carry in which every row differs."""
    params = jax.tree.map(jnp.asarray, some_params(config, seed))
    state = initial_state(config, VOCAB, jax.random.key(0), params)
    random = np.random.default_rng(seed)
    carry = jax.tree.map(
        lambda leaf: jnp.asarray(random.normal(size=leaf.shape), jnp.float32), state.carry
    )
    return dataclasses.replace(state, carry=carry)


def some_batch(seed=0, share=0.7):
    random = np.random.default_rng(seed)
    ids = random.integers(VOCAB, size=(2, ROWS, STEPS)).astype(np.int32)
    mask, reset = random.random((ROWS, STEPS)) < share, random.random((ROWS, 1)) < 0.4
    return Batch(*ids, mask, reset)


def assert_close(actual, expected, tolerance):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


class Run:
    """Training as `fit` compiles it, on the given number of devices."""

    def __init__(self, config, devices=1):
        self.config, self.key = config, jax.random.key(config.train.seed)
        self.mesh = meshes.make_mesh(jax.devices()[:devices])
        meshes.check_devices(config, self.mesh)

        params = some_params(config)

        def make(key):
            return initial_state(config, VOCAB, key, jax.tree.map(jnp.asarray, params))

        shapes = jax.eval_shape(make, self.key)
        sharding = placement.state_sharding(self.mesh, config, shapes)
        self.state = jax.jit(make, out_shardings=sharding)(self.key)
        self.update = jax.jit(
            functools.partial(train_step, config),
            donate_argnums=0,
            out_shardings=(sharding, placement.replicated(self.mesh)),
        )

    def train(self, ids, steps):
        losses = []
        for step in range(steps):
            rows = meshes.local_rows(self.mesh, self.config.data.batch_size)
            batch = batch_at(ids, self.config.data, self.config.train.seed, step, rows)
            batch = placement.put_batch(self.mesh, batch)
            self.state, metrics = self.update(self.state, batch, self.key)
            losses.append(metrics["loss"])
        return np.asarray(losses)


REPEATED = np.tile(np.array([0, 1, 2, 3, 4, 5, 6, 3, 1], np.uint8), 60)


# A step without the library: Python loops and autodiff.


def plain_step(config, params, opt_state, carry, batch):
    def loss(params):
        c, h = (jnp.where(batch.reset, 0.0, leaf) for leaf in carry)
        layers = [params["first"], jax.tree.map(lambda leaf: leaf[0], params["rest"])]
        total = 0.0
        for t in range(STEPS):
            x = jax.nn.one_hot(batch.inputs[:, t], VOCAB)
            for k, layer in enumerate(layers):
                gates = jnp.einsum("be,egh->gbh", x, layer["kernel_x"])
                gates += jnp.einsum("be,egh->gbh", h[k], layer["kernel_h"])
                i, f, g, o = gates + layer["bias"][:, None]
                c = c.at[k].set(jax.nn.sigmoid(f) * c[k] + jax.nn.sigmoid(i) * jnp.tanh(g))
                x = jax.nn.sigmoid(o) * jnp.tanh(c[k])
                h = h.at[k].set(x)
            logits = x @ params["head"]["kernel"] + params["head"]["bias"]
            nats = optax.losses.softmax_cross_entropy_with_integer_labels(
                logits, batch.targets[:, t]
            )
            total += (nats * batch.mask[:, t]).sum()
        return total / batch.mask.sum(), (c, h)

    (value, carry), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    chain = optax.chain(optax.clip_by_global_norm(0.05), optax.adam(0.02))
    opt_state = chain.init(params) if opt_state is None else opt_state
    updates, opt_state = chain.update(gradients, opt_state, params)
    norm = optax.tree.norm(gradients)
    return optax.apply_updates(params, updates), opt_state, carry, value, norm


def test_three_steps_equal_plain_ones():
    config = make_config(**{"optimizer.clip_norm": 0.05})
    state = some_state(config)
    params, carry = state.params, tuple(state.carry)
    opt_state = None
    plain = jax.jit(functools.partial(plain_step, config))
    for seed in range(3):
        batch = some_batch(seed)
        state, metrics = one_step(config, state, batch, jax.random.key(0))
        params, opt_state, carry, loss, norm = plain(params, opt_state, carry, batch)
        assert_close(metrics["loss"], loss, 1e-5)
        assert_close(metrics["grad_norm"], norm, 1e-5)
        assert_close(tuple(state.carry), carry, 1e-5)
        assert_close(state.params, params, 1e-5)
        assert metrics["characters"] == batch.mask.sum()
        assert norm > 0.05
    assert int(state.step) == 3 and state.step.dtype == jnp.int32


def test_the_learning_rate_reported_is_the_one_used():
    config = make_config(
        **{
            "optimizer.name": "sgd",
            "optimizer.schedule": "linear",
            "optimizer.schedule_steps": 10,
            "optimizer.warmup_steps": 3,
            "optimizer.clip_norm": None,
        }
    )
    state = some_state(config)
    for seed in range(5):
        before = state.params
        state, metrics = one_step(config, state, some_batch(seed), jax.random.key(0))
        moved = optax.tree.norm(jax.tree.map(jnp.subtract, state.params, before))
        expected = metrics["learning_rate"] * metrics["grad_norm"]
        np.testing.assert_allclose(moved, expected, rtol=1e-3)


@pytest.mark.parametrize(("cell", "parts"), [("lstm", 4), ("gru", 2)])
def test_accumulating_changes_nothing(cell, parts):
    fields = {"optimizer.name": "sgd", "model.cell": cell}
    whole = make_config(**fields)
    cut = make_config(**fields, **{"optimizer.accumulate": parts})
    state, batch, key = some_state(whole), some_batch(), jax.random.key(0)
    expected = one_step(whole, state, batch, key)
    assert_close(one_step(cut, state, batch, key), expected, 1e-6)


def test_accumulating_on_several_devices_changes_nothing():
    losses = {}
    for parts, devices in ((1, 1), (4, 2)):
        config = make_config(**{"optimizer.accumulate": parts})
        run = Run(config, devices)
        losses[parts] = run.train(REPEATED, 4), run.state.carry
    assert_close(losses[1], losses[4], 1e-5)


def test_masked_positions_contribute_nothing():
    config, batch, key = make_config(), some_batch(), jax.random.key(0)
    state = some_state(config)
    targets = np.where(batch.mask, batch.targets, (batch.targets + 1) % VOCAB)
    expected = one_step(config, state, batch, key)
    other = one_step(config, state, batch._replace(targets=targets), key)
    assert_close(other, expected, 0)
    # A row that is masked as a whole might as well hold another text.
    mask = batch.mask & (np.arange(ROWS) != 2)[:, None]
    inputs = np.where((np.arange(ROWS) == 2)[:, None], 0, batch.inputs)
    one = one_step(config, state, batch._replace(mask=mask), key)
    two = one_step(config, state, batch._replace(mask=mask, inputs=inputs), key)
    assert_close(one[0].params, two[0].params, 0)
    assert_close(one[1], two[1], 0)


@pytest.mark.parametrize(("name", "parts"), [("adam", 1), ("sgd", 4)])
def test_a_batch_without_characters_is_harmless(name, parts):
    config = make_config(**{"optimizer.name": name, "optimizer.accumulate": parts})
    state, batch = some_state(config), some_batch()
    empty = batch._replace(mask=np.zeros_like(batch.mask))
    after, metrics = one_step(config, state, empty, jax.random.key(0))
    assert_close(after.params, state.params, 0)
    assert metrics["loss"] == metrics["grad_norm"] == metrics["characters"] == 0
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(after))


def test_no_gradient_flows_into_the_window_before():
    config = make_config(**{"optimizer.name": "sgd", "optimizer.clip_norm": None})
    first, second, key = some_batch(0), some_batch(1), jax.random.key(0)
    second = second._replace(reset=np.zeros((ROWS, 1), bool))
    middle, _ = one_step(config, some_state(config), first, key)
    after, metrics = one_step(config, middle, second, key)

    def second_loss(params, carry):
        logits, _ = apply(config, params, second.inputs, carry)
        nats = jnp.where(second.mask, cross_entropy(logits, second.targets), 0.0)
        return nats.sum() / second.mask.sum()

    gradients = jax.jit(jax.grad(second_loss))(middle.params, middle.carry)
    expected = jax.tree.map(lambda p, g: p - 0.02 * g, middle.params, gradients)
    assert_close(after.params, expected, 1e-6)
    assert_close(metrics["grad_norm"], optax.tree.norm(gradients), 1e-5)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_one_device_and_eight_give_the_same_losses(cell):
    config = make_config(**{"model.cell": cell, "model.dropout": 0.3})
    runs = [Run(config, devices) for devices in (1, 8)]
    losses = [run.train(REPEATED, 20) for run in runs]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5, atol=1e-5)
    assert_close(runs[0].state.carry, runs[1].state.carry, 1e-4)
    assert losses[0][-1] != losses[0][0]


def test_one_compilation_and_donated_buffers(caplog):
    run = Run(make_config(**{"model.dropout": 0.3}), 8)
    before = run.state
    with jax.log_compiles(True), caplog.at_level(logging.WARNING, logger="jax"):
        run.train(REPEATED, 5)
    compiled = [
        record.getMessage()
        for record in caplog.records
        if record.getMessage().startswith("Compiling")
        and "train_step" in record.getMessage()
    ]
    assert len(compiled) == 1
    assert run.update._cache_size() == 1
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(run.state))


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_learns(name):
    config = make_config(
        **{
            "model.cell": "gru",
            "model.num_layers": 2 if name == "muon" else 1,
            "model.hidden_size": 12,
            "optimizer.name": name,
            "optimizer.learning_rate": RATES.get(name, 0.02),
        }
    )
    losses = Run(config).train(REPEATED, 80)
    assert np.isfinite(losses).all()
    assert losses[0] > 1.5 and losses[-5:].mean() < 0.5 * losses[0]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_text_of_two_hundred_characters_is_learnt_by_heart(precision):
    ids = np.random.default_rng(0).integers(VOCAB, size=200).astype(np.uint8)
    config = make_config(
        **{
            "data.batch_size": 2,
            "data.sequence_length": 33,
            "model.hidden_size": 48,
            "model.num_layers": 1,
            "optimizer.learning_rate": 0.02,
            "train.precision": precision,
        }
    )
    losses = Run(config).train(ids, 240)
    assert losses[-3:].max() < 0.2 < losses[0]


def test_dropout_depends_on_the_step_and_the_key():
    config, batch = make_config(**{"model.dropout": 0.5}), some_batch()
    state = some_state(config)

    def loss(step, seed):
        at = dataclasses.replace(state, step=jnp.int32(step))
        return one_step(config, at, batch, jax.random.key(seed))[1]["loss"].item()

    assert loss(0, 0) == loss(0, 0)
    assert len({loss(0, 0), loss(1, 0), loss(0, 1)}) == 3


def test_the_parts_of_a_batch_do_not_share_dropout():
    config = make_config(**{"model.dropout": 0.5, "optimizer.accumulate": 2})
    # Neighbouring rows, which go to different parts, are the same but for dropout.
    rows = np.repeat(np.arange(ROWS // 2), 2)
    batch, state = Batch(*(leaf[rows] for leaf in some_batch())), some_state(config)
    carry = jax.tree.map(lambda leaf: leaf[:, rows], state.carry)
    state = dataclasses.replace(state, carry=carry)
    after, _ = one_step(config, state, batch, jax.random.key(0))
    np.testing.assert_array_equal(after.carry.h[0, 0::2], after.carry.h[0, 1::2])
    assert (after.carry.h[1, 0::2] != after.carry.h[1, 1::2]).any(-1).all()


def test_steps_under_vmap_and_under_grad():
    config, batch, keys = (
        make_config(),
        some_batch(),
        jax.random.split(jax.random.key(0), 3),
    )
    states = [some_state(config, seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    several = jax.jit(jax.vmap(functools.partial(train_step, config), (0, None, 0)))
    after = several(stacked, batch, keys)
    for k, state in enumerate(states):
        expected = one_step(config, state, batch, keys[k])
        assert_close(jax.tree.map(lambda leaf, k=k: leaf[k], after), expected, 1e-5)

    state = some_state(config)

    def loss(params):
        at = dataclasses.replace(state, params=params)
        return train_step(config, at, batch, keys[0])[1]["loss"]

    gradients = jax.jit(jax.grad(loss))(state.params)
    norm = one_step(config, state, batch, keys[0])[1]["grad_norm"]
    assert_close(optax.tree.norm(gradients), norm, 1e-5)


def test_initial_state_from_given_params():
    config = make_config()
    params = some_params(config, 5)
    state = initial_state(config, VOCAB, jax.random.key(0), params)
    assert isinstance(state, TrainState)
    assert_close(state.params, params, 0)
    assert not any(leaf.any() for leaf in jax.tree.leaves(state.carry))
    assert state.step.shape == () and state.step.dtype == jnp.int32 and state.step == 0


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_cross_entropy_is_the_log_of_the_probability(scale):
    random = np.random.default_rng(0)
    logits = (random.normal(size=(4, 3, VOCAB)) * scale).astype(np.float32)
    targets = random.integers(VOCAB, size=(4, 3)).astype(np.int32)
    wide = logits.astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    expected = np.log(np.exp(wide).sum(-1)) - np.take_along_axis(
        wide, targets[..., None], -1
    ).squeeze(-1)
    actual = cross_entropy(jnp.asarray(logits), jnp.asarray(targets))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6 * scale)


def test_eval_step_scores_without_dropout_and_zeroes_the_masked():
    config, batch = make_config(**{"model.dropout": 0.9}), some_batch()
    state = some_state(config)
    carry, nats = jax.jit(eval_step, static_argnums=0)(
        config, state.params, state.carry, batch
    )
    logits, expected = jax.jit(apply, static_argnums=0)(
        config, state.params, batch.inputs, state.carry, batch.reset
    )
    plain = -jnp.take_along_axis(
        jax.nn.log_softmax(logits), batch.targets[..., None], -1
    ).squeeze(-1)
    assert_close(carry, expected, 1e-6)
    assert_close(nats, np.where(batch.mask, plain, 0.0), 1e-5)
    assert initial_carry(config, ROWS).h.shape == carry.h.shape


def test_after_a_skipped_update_the_rate_used_is_the_one_reported():
    fields = {"optimizer.name": "sgd", "optimizer.schedule": "exponential"}
    fields |= {"optimizer.decay_after_epochs": 0, "optimizer.epoch_steps": 2}
    config = make_config(**fields, **{"optimizer.clip_norm": None})
    skipping = config.replace(**{"optimizer.skip_norm": 1e-9})
    state, key = some_state(config), jax.random.key(1)
    for _ in range(4):
        state, metrics = one_step(skipping, state, some_batch(), key)
        assert metrics["skipped"]
    after, metrics = one_step(config, state, some_batch(), key)
    moved = optax.tree.norm(jax.tree.map(jnp.subtract, after.params, state.params))
    expected = metrics["learning_rate"] * metrics["grad_norm"]
    np.testing.assert_allclose(moved, expected, rtol=1e-4)


def test_rows_begin_from_zero_although_their_first_update_was_skipped():
    config = make_config(**{"optimizer.skip_norm": 1e-9})
    state, batch = some_state(config), some_batch()
    reset = np.arange(ROWS) % 2 == 0
    after, _ = one_step(
        config, state, batch._replace(reset=reset[:, None]), jax.random.key(1)
    )
    for new, old in zip(
        jax.tree.leaves(after.carry), jax.tree.leaves(state.carry), strict=True
    ):
        np.testing.assert_array_equal(new[:, reset], 0)
        np.testing.assert_array_equal(new[:, ~reset], old[:, ~reset])


# What a step may be given.


def members(config, **values):
    """Hyperparameters of several members, `[m]` each."""
    count = len(next(iter(values.values())))
    one = vars(Hyperparameters.of(config))
    every = {name: jnp.full(count, value) for name, value in one.items()}
    return Hyperparameters(**{**every, **{k: jnp.float32(v) for k, v in values.items()}})


def test_members_trained_together_equal_those_trained_alone():
    config = make_config(**{"optimizer.weight_decay": 0.1, "model.dropout": 0.3})
    values = {
        "learning_rate": [0.02, 0.3, 0.02],
        "weight_decay": [0.1, 0.5, 0.0],
        "dropout": [0.3, 0.6, 0.0],
    }

    batches = jax.tree.map(lambda *leaves: np.stack(leaves), *map(some_batch, range(4)))

    def steps(hyperparameters, config=config):
        def step(state, batch):
            state, metrics = train_step(
                *(config, state, batch, jax.random.key(0)), hyperparameters=hyperparameters
            )
            return state, (metrics["loss"], metrics["learning_rate"])

        state, losses = jax.lax.scan(step, some_state(config), batches)
        return state.params, losses

    together = jax.jit(jax.vmap(steps))(members(config, **values))
    for k in range(3):
        fields = {
            "optimizer.learning_rate": values["learning_rate"][k],
            "optimizer.weight_decay": values["weight_decay"][k],
            "model.dropout": values["dropout"][k],
        }
        # A member with 0 is a run without it.
        alone = jax.jit(functools.partial(steps, None, config.replace(**fields)))()
        member = jax.tree.map(lambda leaf, k=k: leaf[k], together)
        assert_close(member, alone, 2e-5)


def test_other_hyperparameters_compile_nothing():
    config = make_config(**{"model.dropout": 0.3})
    state, sizes = some_state(config), []
    for rate in (0.1, 0.2):
        given = dataclasses.replace(
            Hyperparameters.of(config), learning_rate=jnp.float32(rate)
        )
        _, metrics = one_step(
            config, state, some_batch(), jax.random.key(0), hyperparameters=given
        )
        sizes.append(one_step._cache_size())
        assert float(metrics["learning_rate"]) == pytest.approx(rate)
    assert sizes[0] == sizes[1]


def test_an_optimizer_of_ones_own():
    config = make_config(**{"optimizer.name": "sgd", "optimizer.clip_norm": None})
    config = config.replace(**{"optimizer.learning_rate": 0.5})
    own = optax.sgd(0.5)
    state = some_state(config)
    args = some_batch(), jax.random.key(1)
    expected, _ = one_step(config, state, *args)
    theirs = dataclasses.replace(state, opt_state=own.init(state.params))
    actual, metrics = jax.jit(functools.partial(train_step, config, optimizer=own))(
        theirs, *args
    )
    assert_close(actual.params, expected.params, 1e-6)
    assert "learning_rate" not in metrics
    # A skipped update leaves all of its state.
    poisoned = dataclasses.replace(
        theirs, params=jax.tree.map(lambda leaf: leaf * jnp.nan, theirs.params)
    )
    own = optax.adam(0.1)
    poisoned = dataclasses.replace(poisoned, opt_state=own.init(state.params))
    step = jax.jit(functools.partial(train_step, config, optimizer=own))
    after, metrics = step(poisoned, *args)
    assert bool(metrics["skipped"])
    assert_close(after.opt_state, poisoned.opt_state, 0)


def test_an_optimizer_may_ask_for_the_loss_and_for_that_of_other_parameters():
    config = make_config()
    plateau = optax.chain(optax.sgd(0.0), optax.contrib.reduce_on_plateau(0.5, patience=2))
    losses, state = [], some_state(config)
    state = dataclasses.replace(state, opt_state=plateau.init(state.params))
    update = jax.jit(functools.partial(train_step, config, optimizer=plateau))
    for _ in range(4):
        # The same loss again and again.
        same = dataclasses.replace(some_state(config), opt_state=state.opt_state)
        state, _ = update(same, some_batch(), jax.random.key(0))
    assert float(state.opt_state[1].scale) < 1

    newton = optax.lbfgs()
    state = some_state(config)
    state = dataclasses.replace(state, opt_state=newton.init(state.params))
    update = jax.jit(functools.partial(train_step, config, optimizer=newton))
    for _ in range(4):
        state, metrics = update(
            dataclasses.replace(state, carry=some_state(config).carry),
            some_batch(),
            jax.random.key(0),
        )
        losses.append(float(metrics["loss"]))
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_resets_inside_a_window_are_new_beginnings(cell):
    """A window with a reset in the middle equals its two halves, the second from zero."""
    config = make_config(**{"model.cell": cell})
    state, batch = some_state(config), some_batch(share=1.1)
    reset = np.zeros((ROWS, STEPS), bool)
    reset[:, 2] = True
    key = jax.random.key(0)
    whole, metrics = one_step(config, state, batch._replace(reset=reset), key)
    never, at_first = np.zeros((ROWS, 1), bool), np.ones((ROWS, 1), bool)

    def loss(params):
        total, carry = 0.0, state.carry
        for part, first in ((slice(0, 2), never), (slice(2, None), at_first)):
            ids, targets = batch.inputs[:, part], batch.targets[:, part]
            logits, carry = apply(config, params, ids, carry, first)
            total += cross_entropy(logits, targets).sum()
        return total / batch.mask.sum(), carry

    (expected, carry), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(
        state.params
    )
    assert float(metrics["loss"]) == pytest.approx(float(expected), rel=1e-5)
    assert_close(whole.carry, carry, 1e-5)
    norm = optax.tree.norm(gradient)
    assert float(metrics["grad_norm"]) == pytest.approx(float(norm), rel=1e-4)


def test_after_a_skipped_update_rows_with_any_reset_begin_from_zero():
    config = make_config(**{"optimizer.skip_norm": 1e-9})
    state, reset = some_state(config), np.zeros((ROWS, STEPS), bool)
    reset[1, 0] = reset[2, 3] = reset[3, -1] = True
    after, metrics = one_step(
        config, state, some_batch()._replace(reset=reset), jax.random.key(1)
    )
    assert bool(metrics["skipped"])
    for new, old in zip(
        jax.tree.leaves(after.carry), jax.tree.leaves(state.carry), strict=True
    ):
        np.testing.assert_array_equal(new[:, 1:4], 0)
        np.testing.assert_array_equal(new[:, 4:], old[:, 4:])
