"""Dynamic evaluation: a model that learns from each segment of a text once it is scored.

Krause et al. 2018, section 4: the gradient of a segment is divided by its root mean square
over training text, and parameters are drawn back to where they began, those that training
moves much more strongly (RMS with a global prior). No symbol is scored by a model that has
seen it, so the score compares with that of any other model.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from charjax.config.schema import Config
from charjax.errors import InputError
from charjax.evaluation.options import Dynamic
from charjax.model.network import initial_carry, of_network
from charjax.model.parameters import Params
from charjax.text.batching import Batch
from charjax.training.step import eval_step

# Segments in one call of the compiled loop.
_SEGMENTS = 64

# Of the mean RMS: what training has hardly moved has a small one, and would jump.
_EPSILON = 0.1


class Learning(NamedTuple):
    """How a model goes on learning, and what it knows of its gradients."""

    how: Dynamic

    squares: Params
    """The mean square of each parameter's gradient over training text."""


def learning(
    config: Config, params: Params, batches: Iterable[Batch], how: Dynamic
) -> Learning:
    """Looks at the gradients of some windows of training text, of `how.length` symbols.

    Raises InputError where there is none.
    """
    total, count, config = None, 0, of_network(config)
    for batch in batches:
        carry = initial_carry(config, len(batch.inputs))
        squares = _squares(config, params, carry, batch)
        total = squares if total is None else jax.tree.map(jnp.add, total, squares)
        count += 1
    if total is None:
        raise InputError("`batches` is empty: give some windows of training text.")
    return Learning(how, jax.tree.map(lambda leaf: leaf / count, total))


def dynamic_nats(
    config: Config, params: Params, batches: Iterable[Batch], learning: Learning
) -> Iterator[Float[np.ndarray, "batch time"]]:
    """The nats of each symbol, window by window, 0 where masked; the windows of a text in
    order, all of one shape, each learned once it is scored."""
    dynamic, rms = learning.how, jax.tree.map(jnp.sqrt, learning.squares)
    sizes = sum(leaf.size for leaf in jax.tree.leaves(rms))
    mean = sum(leaf.sum() for leaf in jax.tree.leaves(rms)) / sizes
    scale = jax.tree.map(lambda leaf: dynamic.rate / (leaf + _EPSILON * mean), rms)
    back = jax.tree.map(lambda leaf: jnp.minimum(dynamic.decay * leaf / mean, 1), rms)
    state, config = None, of_network(config)
    for part in _in_parts(batches, _SEGMENTS):
        if state is None:
            # Copies, since the compiled loop gives them away.
            start = jax.tree.map(jnp.copy, params)
            state = start, initial_carry(config, part.inputs.shape[1])
        state, nats = _segments(config, state, part, params, scale, back)
        yield from np.asarray(nats)


def _loss(config: Config, params: Params, carry: Any, batch: Batch) -> Any:
    carry, nats = eval_step(config, params, carry, batch)
    return nats.sum() / jnp.maximum(batch.mask.sum(), 1), (carry, nats)


@functools.partial(jax.jit, static_argnums=0)
def _squares(config: Config, params: Params, carry: Any, batch: Batch) -> Params:
    gradient, _ = jax.grad(_loss, 1, has_aux=True)(config, params, carry, batch)
    return jax.tree.map(jnp.square, gradient)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _segments(
    config: Config, state: Any, batches: Batch, first: Params, scale: Params, back: Params
) -> tuple[Any, Array]:
    """The state after some segments, stacked on a leading axis, and their nats."""

    def step(state: Any, batch: Batch) -> tuple[Any, Array]:
        params, carry = state
        gradient, (carry, nats) = jax.grad(_loss, 1, has_aux=True)(
            config, params, carry, batch
        )
        params = jax.tree.map(
            lambda now, slope, by, begun, share: now - slope * by + (begun - now) * share,
            *(params, gradient, scale, first, back),
        )
        return (params, carry), nats

    return jax.lax.scan(step, state, batches)


def _in_parts(batches: Iterable[Batch], size: int) -> Iterator[Batch]:
    """Batches of one shape, so many at a time on a leading axis."""
    batches = iter(batches)
    while part := list(itertools.islice(batches, size)):
        yield Batch(*map(np.stack, zip(*part, strict=True)))
