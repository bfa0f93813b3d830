"""Flax's own recurrence, nn.RNN over OptimizedLSTMCell, with autodiff of its scan."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from benchmarks.charjax_rows import versions
from benchmarks.work import Work
from charjax.text.batching import batch_at


class Network(nn.Module):
    work: Work
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, ids: Any, carry: Any, key: Any) -> Any:
        work = self.work
        x = jax.nn.one_hot(ids, work.vocab_size)
        after = []
        for layer in range(work.num_layers):
            cell = nn.OptimizedLSTMCell(
                work.hidden_size, dtype=self.dtype, name=f"cell_{layer}"
            )
            state, x = nn.RNN(cell, return_carry=True)(x, initial_carry=carry[layer])
            after.append(state)
            if work.dropout:
                keep = 1 - work.dropout
                mask = jax.random.bernoulli(jax.random.fold_in(key, layer), keep, x.shape)
                x = jnp.where(mask, x / keep, 0)
        logits = nn.Dense(work.vocab_size, dtype=self.dtype)(x)
        return logits.astype(jnp.float32), after


def training(work: Work, precision: str) -> Any:
    """One update after another, as charjax's row."""
    del precision  # float32 only
    state = initial_state(work)
    update = jax.jit(functools.partial(update_step, work, jnp.float32), donate_argnums=0)
    return repeated(update, state, work), versions()


def initial_state(work: Work) -> Any:
    """Parameters, moments and carry."""
    zeros = lambda: jnp.zeros((work.batch_size, work.hidden_size))  # noqa: E731
    carry = [(zeros(), zeros()) for _ in range(work.num_layers)]
    key, ids = jax.random.key(0), jnp.zeros((work.batch_size, 1), jnp.int32)
    params: Any = Network(work).init(key, ids, carry, key)
    return params, _CHAIN.init(params), carry


_CHAIN = optax.chain(optax.clip_by_global_norm(5.0), optax.adam(1e-3))


def update_step(work: Work, dtype: Any, state: Any, batch: Any, key: Any) -> Any:
    """`(state after, loss)`."""
    params, moments, carry = state
    model = Network(work, dtype)

    def loss(params: Any) -> Any:
        logits, after = model.apply(params, batch.inputs, carry, key)
        nats = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)
        return nats.mean(), after

    (value, carry), grads = jax.value_and_grad(loss, has_aux=True)(params)
    updates, moments = _CHAIN.update(grads, moments, params)
    return (optax.apply_updates(params, updates), moments, carry), value


def repeated(update: Any, state: Any, work: Work) -> Any:
    """A row's repetitions: `update(state, batch, key) -> (state, loss)` on the text."""
    config, ids, key = work.config("float32"), work.ids(), jax.random.key(1)
    held: dict[str, Any] = {"state": state, "step": 0}

    def run(count: int) -> float:
        waiting = None
        for _ in range(count):
            batch = batch_at(ids, config.data, 0, held["step"])
            step_key = jax.random.fold_in(key, held["step"])
            held["state"], value = update(held["state"], batch, step_key)
            # Read a step late, like every system's losses here.
            if waiting is not None:
                waiting.item()
            waiting = value
            held["step"] += 1
        assert waiting is not None
        return waiting.item()

    return run
