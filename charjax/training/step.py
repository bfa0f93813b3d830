"""The pure training and evaluation steps."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float

from charjax.config.checks import check_instance
from charjax.config.schema import Config
from charjax.model.arguments import (
    check_carry,
    check_config,
    check_ids,
    check_key,
    check_of_rows,
)
from charjax.model.arithmetic import usual_promotion
from charjax.model.loss import cross_entropy
from charjax.model.network import apply
from charjax.model.parameters import Params, vocab_size
from charjax.model.recurrence.choose import GENERAL_RECURRENCE, Recurrence
from charjax.model.recurrence.plain import zeroed
from charjax.text.batching import Batch
from charjax.training.freezing import completed, trainable
from charjax.training.hyperparameters import Hyperparameters
from charjax.training.optimizer import optimizer as configured
from charjax.training.optimizer import update
from charjax.training.schedule import schedule
from charjax.training.state import TrainState

Metrics = dict[str, Array]
Gather = Callable[[Params], Params]


@usual_promotion()
def train_step(
    config: Config,
    state: TrainState,
    batch: Batch,
    key: Array,
    *,
    hyperparameters: Hyperparameters | None = None,
    optimizer: optax.GradientTransformation | None = None,
    recurrence: Recurrence = GENERAL_RECURRENCE,
    gather: Gather = lambda params: params,
) -> tuple[TrainState, Metrics]:
    """One update: state in, state out.

    The gradient stops at the window's edge because the carry enters as data (truncated
    back-propagation through time).

    Args:
      config: the run's config, its schedule resolved; static under `jit`.
      state: the state before; safe to donate.
      batch: inputs, targets and mask `[b, t]`, reset `[b, t]` or `[b, 1]`.
      key: the run's PRNG key, the same at every step; the step number is folded in.
      hyperparameters: values to use instead of the config's.
      optimizer: turns gradients into updates, instead of what the config says.
      recurrence: its implementation, as in `apply`.
      gather: brings together parameters, or gradients like them, that are split over
        devices: the former before their use, the latter while parts are added up.

    An update whose loss or gradient is not finite, or whose gradient norm is above
    `optimizer.skip_norm`, is skipped: parameters, moments and carry stay what they were,
    bit for bit; only the step and the schedule's count of steps go on.

    Raises:
      InputError: a state or batch that does not fit the config or the other, at trace
        time; of ids see `apply`.

    Returns:
      The state after, and scalars: `loss` (nats per symbol, mean over the mask),
      `characters` (how many symbols counted), `grad_norm` (before clipping, without what is
      frozen), `skipped` (bool) and, without an `optimizer` of your own, `learning_rate`.
    """
    _check(config, state, batch, key)
    values = Hyperparameters.of(config) if hyperparameters is None else hyperparameters
    key = jax.random.fold_in(key, state.step)
    nats = _nats(config, values, recurrence)
    (loss, carry), grads = _in_parts(nats, config, state, batch, key, gather)
    characters = jnp.sum(batch.mask, dtype=jnp.int32)
    count = jnp.maximum(characters, 1).astype(jnp.float32)
    loss, grads = loss / count, jax.tree.map(lambda grad: grad / count, grads)
    chain = configured(config, values) if optimizer is None else optimizer
    trained: Any = trainable(config, state.params)
    whole = functools.partial(completed, params=state.params)
    updates, opt_state = update(
        *(config, chain, grads, state.opt_state, trained, loss),
        lambda part: nats(gather(whole(part)), batch, state.carry, key)[0] / count,
    )
    params = whole(optax.apply_updates(trained, updates))
    grad_norm = optax.tree.norm(grads)
    skipped = _to_skip(config, loss, grad_norm)
    after = TrainState(state.step + 1, params, opt_state, carry)
    metrics = {"loss": loss, "characters": characters, "grad_norm": grad_norm}
    metrics["skipped"] = skipped
    if optimizer is None:
        rate: Any = schedule(config, values.learning_rate)(state.step)
        metrics["learning_rate"] = jnp.asarray(rate, jnp.float32)
    return _unless(skipped, after, state, batch, follows=optimizer is None), metrics


def _check(config: Config, state: TrainState, batch: Batch, key: Array) -> None:
    check_config(config)
    check_instance("state", state, TrainState, "such as initial_state(...)")
    check_instance("batch", batch, Batch)
    check_key(key)
    symbols = vocab_size(state.params)
    for name in ("inputs", "targets"):
        check_ids(f"batch.{name}", getattr(batch, name), "batch time", symbols)
    shape = batch.inputs.shape
    check_of_rows("batch.targets", batch.targets, np.integer, [shape])
    check_of_rows("batch.mask", batch.mask, np.bool_, [shape])
    check_of_rows("batch.reset", batch.reset, np.bool_, [shape, (shape[0], 1)])
    check_carry(config, state.carry, shape[0])


def _nats(config: Config, values: Hyperparameters, recurrence: Recurrence) -> Any:
    """(parameters, batch, carry, key) -> nats of the batch and carry after."""

    def nats(params: Params, batch: Batch, carry: Any, key: Array) -> tuple[Array, Any]:
        logits, carry = apply(
            *(config, params, batch.inputs, carry, batch.reset, key),
            dropout=values.dropout,
            recurrence=recurrence,
        )
        nats = cross_entropy(logits, batch.targets)
        return jnp.where(batch.mask, nats, 0.0).sum(), carry

    return nats


def _in_parts(
    nats: Any,
    config: Config,
    state: TrainState,
    batch: Batch,
    key: Array,
    gather: Gather,
) -> Any:
    """((nats, carry after), gradients) of a batch, cut into parts that run one after the
    other."""
    whole, parts = gather(state.params), config.optimizer.accumulate
    params = trainable(config, whole)
    gradient = jax.value_and_grad(
        lambda trained, *others: nats(completed(trained, whole), *others), has_aux=True
    )
    if parts == 1:
        return gradient(params, batch, state.carry, key)

    def add(total: Any, part: Any) -> tuple[Any, Any]:
        batch, carry, index = part
        part_key = jax.random.fold_in(key, index)
        (loss, carry), grads = gradient(params, batch, carry, part_key)
        return jax.tree.map(jnp.add, total, (loss, gather(grads))), carry

    zero = (
        jnp.zeros((), whole["head"]["bias"].dtype),
        jax.tree.map(jnp.zeros_like, params),
    )
    cut = (_cut(batch, parts, 0), _cut(state.carry, parts, 1), jnp.arange(parts))
    (loss, grads), carry = jax.lax.scan(add, zero, cut)
    return (loss, _join(carry, 1)), grads


def _to_skip(config: Config, loss: Array, grad_norm: Array) -> Array:
    limit = config.optimizer.skip_norm
    sound = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    return ~(sound if limit is None else sound & (grad_norm <= limit))


def _unless(
    skipped: Array, after: TrainState, state: TrainState, batch: Batch, follows: bool
) -> TrainState:
    """The state after an update, or after one that was skipped.

    Whether the last part of the optimizer's state `follows` the steps, skipped or not, as
    our schedules do.
    """
    opt_state: Any = state.opt_state
    if follows:
        opt_state = (*opt_state[:-1], after.opt_state[-1])
    before = TrainState(
        step=after.step,
        params=state.params,
        opt_state=opt_state,
        # Where a text begins, the state of the one before must not go on.
        carry=zeroed(state.carry, batch.reset.any(axis=1)),
    )
    # Chosen, never multiplied by zero: zero times NaN is NaN. A carry that is not a number
    # would poison every later step.
    return jax.tree.map(lambda new, old: jnp.where(skipped, old, new), after, before)


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


@usual_promotion()
def eval_step(
    config: Config,
    params: Params,
    carry: Any,
    batch: Batch,
    recurrence: Recurrence = GENERAL_RECURRENCE,
) -> tuple[Any, Float[Array, "batch time"]]:
    """Scores one window without dropout.

    Returns the carry after it and the nats of each character, 0 where masked.
    """
    logits, carry = apply(
        *(config, params, batch.inputs, carry, batch.reset), recurrence=recurrence
    )
    nats = cross_entropy(logits, batch.targets)
    return carry, jnp.where(batch.mask, nats, 0.0)
