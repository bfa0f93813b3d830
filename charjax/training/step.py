"""The pure training and evaluation steps."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from charjax.config.schema import Config
from charjax.model.network import Params, apply, with_reset
from charjax.text.batching import Batch
from charjax.training.optimizer import optimizer, schedule
from charjax.training.state import TrainState

Metrics = dict[str, Array]


def cross_entropy(logits: Array, targets: Array) -> Array:
    """Nats of each target: logits `[..., v]` float32, targets `[...]` ids."""
    # The target's logit by comparison, since a gather's gradient is a scatter.
    symbols = jnp.arange(logits.shape[-1], dtype=targets.dtype)
    target = jnp.where(symbols == targets[..., None], logits, 0.0).sum(-1)
    return jax.nn.logsumexp(logits, axis=-1) - target


def train_step(
    config: Config,
    state: TrainState,
    batch: Batch,
    key: Array,
    gather: Callable[[Params], Params] = lambda params: params,
) -> tuple[TrainState, Metrics]:
    """One update: state in, state out.

    The gradient stops at the window's edge because the carry enters as data (truncated
    back-propagation through time).

    Args:
      config: the run's config, its schedule resolved; static under `jit`.
      state: the state before; safe to donate.
      batch: inputs, targets and mask `[b, t]`, reset `[b]`.
      key: the run's PRNG key, the same at every step; the step number is folded in.
      gather: brings together parameters, or gradients like them, that are split over
        devices: the former before their use, the latter while parts are added up.

    An update whose loss or gradient is not finite, or whose gradient norm is above
    `optimizer.skip_norm`, is skipped: parameters, moments and carry stay what they were,
    bit for bit; only the step and the schedule's count of steps go on.

    Returns:
      The state after, and scalars: `loss` (nats per character, mean over the mask),
      `characters` (how many counted), `grad_norm` (before clipping), `learning_rate`,
      `skipped` (bool).
    """
    key = jax.random.fold_in(key, state.step)
    characters = batch.mask.sum()

    def loss_sum(params: Params, batch: Batch, carry: Any, key: Array) -> tuple[Array, Any]:
        logits, carry = apply(config, params, batch.inputs, carry, batch.reset, key)
        nats = cross_entropy(logits, batch.targets)
        return jnp.where(batch.mask, nats, 0.0).sum(), carry

    gradient = jax.value_and_grad(loss_sum, has_aux=True)
    params = gather(state.params)
    parts = config.optimizer.accumulate
    if parts == 1:
        (loss, carry), grads = gradient(params, batch, state.carry, key)
    else:

        def add(total: Any, part: Any) -> tuple[Any, Any]:
            batch, carry, index = part
            part_key = jax.random.fold_in(key, index)
            (loss, carry), grads = gradient(params, batch, carry, part_key)
            return jax.tree.map(jnp.add, total, (loss, gather(grads))), carry

        zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
        cut = (_cut(batch, parts, 0), _cut(state.carry, parts, 1), jnp.arange(parts))
        (loss, grads), carry = jax.lax.scan(add, zero, cut)
        carry = _join(carry, 1)

    count = jnp.maximum(characters, 1).astype(jnp.float32)
    grads = jax.tree.map(lambda grad: grad / count, grads)
    chain: Any = optimizer(config)
    updates, opt_state = chain.update(grads, state.opt_state, state.params)
    loss, grad_norm = loss / count, optax.tree.norm(grads)
    limit = config.optimizer.skip_norm
    sound = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    if limit is not None:
        sound &= grad_norm <= limit
    metrics = {
        "loss": loss,
        "characters": characters,
        "grad_norm": grad_norm,
        "skipped": ~sound,
        "learning_rate": jnp.asarray(schedule(config)(state.step), jnp.float32),
    }
    after = (optax.apply_updates(state.params, updates), opt_state, carry)
    before = (
        state.params,
        # The schedule, last in the chain, follows the steps, skipped or not.
        (*state.opt_state[:-1], opt_state[-1]),
        # Where an epoch begins, the state of the one before must not go on.
        with_reset(state.carry, batch.reset),
    )
    # Chosen, never multiplied by zero: zero times NaN is NaN. A carry that is not a number
    # would poison every later step.
    kept: Any = jax.tree.map(lambda new, old: jnp.where(sound, new, old), after, before)
    return TrainState(state.step + 1, *kept), metrics


def _cut(tree: Any, parts: int, axis: int) -> Any:
    """Splits the row axis into parts on a new leading axis; part k has the rows that are
    k modulo `parts`, so that each part still lies on all devices."""

    def cut(leaf: Array) -> Array:
        rows = leaf.shape[axis] // parts
        shape = (*leaf.shape[:axis], rows, parts, *leaf.shape[axis + 1 :])
        return jnp.moveaxis(leaf.reshape(shape), axis + 1, 0)

    return jax.tree.map(cut, tree)


def _join(tree: Any, axis: int) -> Any:
    def join(leaf: Array) -> Array:
        leaf = jnp.moveaxis(leaf, 0, axis + 1)
        return leaf.reshape(*leaf.shape[:axis], -1, *leaf.shape[axis + 2 :])

    return jax.tree.map(join, tree)


def eval_step(
    config: Config, params: Params, carry: Any, batch: Batch
) -> tuple[Any, Array]:
    """Scores one window without dropout.

    Returns the carry after it and the nats of each character `[b, t]`, 0 where masked.
    """
    logits, carry = apply(config, params, batch.inputs, carry, batch.reset)
    nats = cross_entropy(logits, batch.targets)
    return carry, jnp.where(batch.mask, nats, 0.0)
