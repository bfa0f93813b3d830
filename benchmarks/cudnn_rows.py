"""cuDNN's LSTM as jax.experimental.rnn gives it: float32, on a GPU only."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.experimental import rnn

from benchmarks.charjax_rows import versions
from benchmarks.flax_rows import repeated
from benchmarks.work import Work


def training(work: Work, precision: str) -> Any:
    """One update after another; dropout after the last layer only, since cuDNN's own
    does not take JAX's keys."""
    exact = jax.lax.Precision.HIGHEST if precision == "float32" else None
    sizes = (work.vocab_size, work.hidden_size, work.num_layers)
    key = jax.random.key(0)
    head = jax.random.normal(key, (work.hidden_size, work.vocab_size)) * 0.04
    flat = rnn.init_lstm_weight(key, *sizes, bidirectional=False)
    params: Any = {"lstm": flat, "head": head}
    chain = optax.chain(optax.clip_by_global_norm(5.0), optax.adam(1e-3))
    shape = (work.num_layers, work.batch_size, work.hidden_size)
    lengths = jnp.full((work.batch_size,), work.sequence_length, jnp.int32)
    carry = (jnp.zeros(shape), jnp.zeros(shape))

    @functools.partial(jax.jit, donate_argnums=0)
    def update(state: Any, batch: Any, key: Any) -> Any:
        params, moments, (h, c) = state

        def loss(params: Any) -> Any:
            x = jax.nn.one_hot(batch.inputs, work.vocab_size)
            out: Any = rnn.lstm(
                *(x, h, c, params["lstm"], lengths),
                input_size=work.vocab_size,
                hidden_size=work.hidden_size,
                num_layers=work.num_layers,
                dropout=0.0,
                bidirectional=False,
                precision=exact,
            )
            y, h_last, c_last = out
            keep = 1 - work.dropout
            y = jnp.where(jax.random.bernoulli(key, keep, y.shape), y / keep, 0)
            logits = y @ params["head"]
            nats = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)
            return nats.mean(), (h_last, c_last)

        (value, carry), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, moments = chain.update(grads, moments, params)
        return (optax.apply_updates(params, updates), moments, carry), value

    return repeated(update, (params, chain.init(params), carry), work), versions()
