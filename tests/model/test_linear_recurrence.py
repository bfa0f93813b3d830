"""All steps at once against one after the other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from charjax import Config, InputError, ModelConfig, apply, init, initial_carry
from charjax.model.linear_recurrence import linear_scan
from charjax.model.recurrence.choose import Recurrence
from charjax.model.recurrence.layout import GENERAL
from charjax.model.recurrence.place import Place

ON_GPU = Recurrence("scan", GENERAL, "", Place("gpu"))


assert_close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)


def one_by_one(keep, new, first):
    states = []
    for t in range(len(keep)):
        first = keep[t] * first + new[t]
        states.append(first)
    return jnp.stack(states)


def test_all_at_once_and_in_order_equal_one_by_one_with_every_gradient():
    random = np.random.default_rng(0)
    keep, weights = random.uniform(size=(13, 3, 4)), random.normal(size=(13, 3, 4))
    keep[5, 1] = keep[0, 2] = 0
    keep[7] = 1
    args = [jnp.float32(x) for x in (keep, random.normal(size=keep.shape), weights[0])]

    def found(run):
        scored = jax.value_and_grad(lambda *args: (weights * run(*args)).sum(), (0, 1, 2))
        return jax.jit(scored)(*args)

    expected = found(one_by_one)
    for at_once in (True, False):
        actual = found(lambda *args, at_once=at_once: linear_scan(*args, at_once))
        for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cell", ["mingru", "minlstm"])
def test_a_cell_is_the_same_at_once_and_step_by_step_with_resets_and_rare_gates(cell):
    config = Config(model=ModelConfig(cell, 2, 8, dropout=0.0))
    params = init(config, 5, jax.random.key(0))
    # Gates that are as good as shut or open.
    params["first"]["bias"] = params["first"]["bias"].at[:-1, :4].set(-200.0)
    params["first"]["bias"] = params["first"]["bias"].at[0, 2:6].set(200.0)
    ids = np.random.default_rng(1).integers(5, size=(3, 9))
    reset = np.zeros(ids.shape, bool)
    reset[0, 4] = reset[1, 0] = reset[1, 8] = True
    carry = initial_carry(config, 3)
    carry = jax.tree.map(lambda leaf: leaf + 0.5, carry)

    def score(params, recurrence):
        logits, last = apply(config, params, ids, carry, reset, recurrence=recurrence)
        return (logits**2).sum(), (logits, last)

    step, singles = carry, []
    for t in range(ids.shape[1]):
        now = slice(t, t + 1)
        logits, step = apply(config, params, ids[:, now], step, reset[:, now])
        singles.append(logits)
    gradients = []
    for recurrence in (Recurrence(), ON_GPU):
        found = jax.jit(jax.value_and_grad(score, has_aux=True), static_argnums=1)
        (_, (logits, last)), gradient = found(params, recurrence)
        np.testing.assert_allclose(
            logits, jnp.concatenate(singles, 1), rtol=1e-5, atol=1e-5
        )
        assert_close(last.h, step.h)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
        gradients.append(gradient)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), *gradients
    )


@pytest.mark.parametrize("fields", [{"layer_norm": True}, {"recurrent_dropout": 0.1}])
def test_what_needs_a_hidden_kernel_is_refused(fields):
    (name,) = fields
    with pytest.raises(InputError, match=f"model.{name} is .*mingru"):
        ModelConfig(cell="mingru", **fields)
