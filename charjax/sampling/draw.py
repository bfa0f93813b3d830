"""Prefill and the compiled sampling loop.

Drawing a character needs the scores of the next one and the recurrent state behind
them; that pair is the `SamplingState`, and everything here takes one and returns one.
Each row and position has its own key, so a text is the same however it is cut into
chunks, and a row does not depend on the rows beside it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from charjax.config.schema import Config
from charjax.errors import InputError
from charjax.model.network import apply, initial_carry
from charjax.model.parameters import Params

# Numbers of noise drawn at once, at most: 64 MiB.
NOISE = 2**24


class SamplingState(NamedTuple):
    """What the next character depends on."""

    logits: Array
    """Scores of the next character, `[b, v]` float32."""

    carry: Any
    """Recurrent state, leaves `[l, b, h]`."""

    position: Array
    """Characters drawn so far, int32 scalar."""


def check_options(
    length: int, temperature: float, top_k: int | None, vocab_size: int
) -> None:
    """Raises InputError for a length, temperature or top-k that means nothing."""
    if length < 0:
        raise InputError(f"length is {length}: give 0 or more characters.")
    if not 0 <= temperature <= np.finfo(np.float32).max:
        raise InputError(
            f"temperature is {temperature}: give 0 (always the likeliest character) or "
            "a positive number; 1 draws from the model as it is."
        )
    if top_k is not None and not 1 <= top_k <= vocab_size:
        raise InputError(
            f"top_k is {top_k}: give a number from 1 to {vocab_size}, the size of the "
            "vocabulary, or nothing to draw from all."
        )


def start(config: Config, first_logits: Array, rows: int) -> SamplingState:
    """The state before any text; the first character is drawn from `first_logits [v]`."""
    logits = jnp.broadcast_to(first_logits, (rows, first_logits.shape[-1]))
    return SamplingState(logits, initial_carry(config, rows), jnp.int32(0))


def prefill(
    config: Config, params: Params, state: SamplingState, ids: Array, length: Array
) -> SamplingState:
    """Reads text in one pass.

    Args:
      config: the run's config.
      params: parameters.
      state: the state before the text.
      ids: the text, `[b, t]`, padded on the right with any id.
      length: `[b]` int32, how many ids of each row count, at least 1.

    Returns:
      The state after the text; its position is unchanged.
    """
    logits, carry = apply(config, params, ids, state.carry, length=length)
    return SamplingState(logits, carry, state.position)


def repeated(state: SamplingState, rows: int) -> SamplingState:
    """The state of one row, for so many rows."""
    logits = jnp.broadcast_to(state.logits, (rows, state.logits.shape[1]))
    carry = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (leaf.shape[0], rows, leaf.shape[2])),
        state.carry,
    )
    return SamplingState(logits, carry, state.position)


def draw(
    config: Config,
    params: Params,
    state: SamplingState,
    length: int,
    key: Array,
    temperature: Array | float = 1.0,
    top_k: int | None = None,
) -> tuple[SamplingState, Array]:
    """Draws `length` characters for each row: the compiled loop.

    Args:
      config: the run's config; static under `jit`.
      params: parameters.
      state: the state to go on from.
      length: how many characters; static, so that the loop's trip count is known.
      key: PRNG key of the whole text, the same for each chunk of it.
      temperature: scalar or `[b]`, at least 0; 0 takes the likeliest character.
      top_k: draw among the k likeliest only; static.

    Returns:
      The state after, and the drawn ids `[b, length]` int32.
    """
    rows, vocab_size = state.logits.shape
    width = vocab_size if top_k is None else top_k
    row_keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(rows))
    temperature = jnp.broadcast_to(jnp.asarray(temperature, jnp.float32), (rows,))
    greedy = temperature == 0
    scale = 1 / jnp.where(greedy, 1.0, temperature)

    params = _converted(config, params)

    def noise(position: Array) -> Array:
        keys = jax.vmap(lambda row: jax.random.fold_in(row, position))(row_keys)
        return jax.vmap(lambda key: jax.random.gumbel(key, (width,)))(keys)

    def step(state: SamplingState, noisy: Array | None) -> tuple[SamplingState, Array]:
        gumbel = noise(state.position) if noisy is None else noisy
        logits, symbols = state.logits, None
        if top_k is not None:
            logits, symbols = jax.lax.top_k(logits, top_k)
        # Relative to the likeliest, since a tiny temperature would make infinities of both.
        above = logits - logits.max(-1, keepdims=True)
        drawn = (above * scale[:, None] + gumbel).argmax(-1)
        choice = jnp.where(greedy, logits.argmax(-1), drawn).astype(jnp.int32)
        if symbols is not None:
            choice = jnp.take_along_axis(symbols, choice[:, None], axis=1)[:, 0]
        logits, carry = apply(config, params, choice[:, None], state.carry)
        return SamplingState(logits[:, 0], carry, state.position + 1), choice

    # All of a chunk's noise at once, if it is not too much: one large kernel instead of
    # many small ones.
    noises = None
    if length * rows * width <= NOISE:
        noises = jax.vmap(noise)(state.position + jnp.arange(length))
    state, ids = jax.lax.scan(step, state, noises, length)
    return state, ids.T


def _converted(config: Config, params: Params) -> Params:
    """Matrix operands in the precision of the products, once instead of in each step."""
    dtype = config.train.precision

    def converted(path: Any, leaf: Array) -> Array:
        room, name = path[0].key, path[-1].key
        # Rows of a first layer that reads ids are added as they are.
        one_hot = room == "first" and name == "kernel_x" and "embedding" not in params
        is_kernel = name in ("kernel", "kernel_x", "kernel_h")
        return leaf.astype(dtype) if is_kernel and not one_hot else leaf

    return jax.tree_util.tree_map_with_path(converted, params)


def sample(
    config: Config,
    params: Params,
    prime_ids: Array,
    length: int,
    key: Array,
    temperature: Array | float = 1.0,
    top_k: int | None = None,
) -> Array:
    """New text after a prime, as ids; pure, and usable under `jit` and `vmap`.

    Args:
      config: the run's config; static under `jit`.
      params: parameters.
      prime_ids: `[p]` or `[b, p]` ids, at least one.
      length: characters to draw; static under `jit`.
      key: a typed PRNG key.
      temperature: 0 takes the likeliest character, 1 draws from the model as it is.
      top_k: draw among the k likeliest characters only; static under `jit`.

    Returns:
      The new ids, `[length]` or `[b, length]` int32, without the prime.

    >>> import jax
    >>> from charjax import Config, ModelConfig, init, sample
    >>> config = Config(model=ModelConfig(hidden_size=16))
    >>> params = init(config, 65, jax.random.key(0))
    >>> sample(config, params, jax.numpy.array([1, 2, 3]), 5, jax.random.key(1)).shape
    (5,)
    """
    ids = jnp.atleast_2d(prime_ids)
    if ids.shape[1] == 0:
        raise InputError("prime_ids is empty: sample needs at least one id to go on from.")
    vocab_size = params["head"]["bias"].shape[0]
    state = start(config, jnp.zeros((vocab_size,)), ids.shape[0])
    lengths = jnp.full((ids.shape[0],), ids.shape[1], jnp.int32)
    state = prefill(config, params, state, ids, lengths)
    new = draw(config, params, state, length, key, temperature, top_k)[1]
    return new if jnp.ndim(prime_ids) == 2 else new[0]
