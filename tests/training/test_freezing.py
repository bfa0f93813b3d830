"""Groups of parameters that stay as they are."""

import functools
import typing

import jax
import numpy as np
import optax
import pytest

from charjax.config.schema import Config
from charjax.config.train import Group
from charjax.errors import InputError
from charjax.model.network import apply
from charjax.model.parameters import table
from charjax.storage.run_directory import resumed_config
from charjax.text.batching import Batch
from charjax.training.freezing import trainable
from charjax.training.schedule import resolve
from charjax.training.state import initial_state
from charjax.training.step import cross_entropy, train_step

NAMES = ["adam", "adamw", "rmsprop", "adagrad", "sgd", "lion", "muon"]
FROZEN = [
    ["head"],
    ["embedding", "head"],
    ["first", "rest"],
    ["embedding", "first", "rest"],
]
VOCAB, ROWS, STEPS = 7, 4, 5


def make_config(freeze=None, **fields):
    tiny = {
        **{"data.batch_size": ROWS, "data.sequence_length": STEPS},
        **{"model.hidden_size": 6, "model.embedding_size": 6, "model.dropout": 0.0},
        **{"optimizer.schedule": "constant", "optimizer.warmup_steps": 0},
        **{"optimizer.weight_decay": 0.1, "optimizer.beta1": 0.9, "train.freeze": freeze},
    }
    return resolve(Config().replace(**{**tiny, **fields}), 10)


def some_params(config):
    random = np.random.default_rng(0)
    return jax.tree.map(
        lambda each: random.normal(0, 0.3, each.shape).astype("f4"),
        table(config.model, VOCAB),
    )


def some_batch():
    ids = np.random.default_rng(1).integers(VOCAB, size=(2, ROWS, STEPS)).astype(np.int32)
    return Batch(*ids, np.ones((ROWS, STEPS), bool), np.zeros((ROWS, 1), bool))


def passed():
    """An optimizer that knows all groups by name, and begins from the parameters."""
    decays = {name: {"table", "head"} & {name} for name in typing.get_args(Group)}
    return optax.chain(
        optax.contrib.schedule_free_adamw(0.1, weight_decay=0.1),
        optax.add_decayed_weights(-0.1, {name: bool(decays[name]) for name in decays}),
    )


@pytest.mark.parametrize(
    ("freeze", "optimizer", "fields"),
    [
        (["first", "rest"], None, {"optimizer.name": "adamw", "optimizer.accumulate": 2}),
        (["embedding", "head"], None, {"optimizer.name": "muon"}),
        (["head"], passed(), {}),
    ],
)
def test_what_is_frozen_stays_to_the_bit_and_counts_for_nothing(freeze, optimizer, fields):
    config, key, batch = make_config(freeze, **fields), jax.random.key(0), some_batch()
    state = initial_state(config, VOCAB, key, some_params(config), optimizer)
    step = jax.jit(functools.partial(train_step, config, optimizer=optimizer))
    (after, metrics), before = step(state, batch, key), state.params
    twice, _ = step(after, batch, key)
    for group, members in twice.params.items():
        for name, leaf in members.items():
            same = np.array_equal(leaf, before[group][name])
            assert same == (group in freeze), (group, name)

    def loss(params):
        logits, _ = apply(config, params, batch.inputs, state.carry)
        return cross_entropy(logits, batch.targets).mean()

    grads = jax.grad(loss)(before)
    trained = {group: grads[group] for group in grads if group not in freeze}
    np.testing.assert_allclose(metrics["grad_norm"], optax.tree.norm(trained), rtol=1e-4)


def test_the_norm_is_clipped_to_that_of_what_is_trained():
    only = {"optimizer.name": "sgd", "optimizer.beta1": 0, "optimizer.weight_decay": 0}
    rates = {"optimizer.clip_norm": 1e-3, "optimizer.learning_rate": 1.0}
    config = make_config(["rest"], **only, **rates)
    state = initial_state(config, VOCAB, jax.random.key(0), some_params(config))
    after, _ = train_step(config, state, some_batch(), jax.random.key(0))
    moved = optax.tree.norm(jax.tree.map(np.subtract, after.params, state.params))
    np.testing.assert_allclose(moved, 1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_frozen_has_no_moments(name):
    for freeze in FROZEN:
        config = make_config(freeze, **{"optimizer.name": name})
        state = jax.eval_shape(lambda: initial_state(config, VOCAB, jax.random.key(0)))  # noqa: B023
        paths = jax.tree_util.tree_leaves_with_path(state.opt_state)
        kept = {getattr(key, "key", None) for path, _ in paths for key in path}
        assert kept & {*typing.get_args(Group)} == {*state.params} - {*freeze}


def test_the_groups_that_can_be_named_are_those_of_the_table():
    shapes = ({}, {"model.num_layers": 1, "model.embedding_size": None})
    found = [{*table(make_config(**fields).model, VOCAB)} for fields in shapes]
    assert set.union(*found) == {*typing.get_args(Group)} != found[1]


@pytest.mark.parametrize(
    ("freeze", "fields", "words"),
    [
        (
            ["embedding"],
            {"model.embedding_size": None},
            "has no embedding.*first, rest, he",
        ),
        (["rest"], {"model.num_layers": 1}, "has no rest"),
        (["embedding", "first", "rest", "head"], {}, "nothing is left to train"),
        (["head"], {"model.tied": True}, "embedding and head one; give both"),
        (["embedding", "first"], {"model.tied": True}, "embedding and head one"),
        (["tail"], {}, "expected some of embedding, first, rest, head or None"),
        ([], {}, "expected some of"),
    ],
)
def test_what_cannot_be_frozen_is_refused(freeze, fields, words):
    with pytest.raises(InputError, match=rf"train\.freeze is \(.*{words}"):
        config = make_config(freeze, **fields)
        trainable(config, table(config.model, VOCAB))


def test_a_resumed_run_freezes_what_it_froze():
    stored = make_config(["head", "first"])
    assert resumed_config(stored, make_config(["first", "head", "head"])) == stored
    for other in (None, ["first"]):
        with pytest.raises(InputError, match=r"train\.freeze: the run has \('first', 'he"):
            resumed_config(stored, make_config(other))
