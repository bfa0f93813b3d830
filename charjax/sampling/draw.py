"""Prefill and the compiled sampling loop.

Drawing a character needs the scores of the next one and the recurrent state behind
them; that pair is the `SamplingState`, and everything here takes one and returns one.
Each row and position has its own key, so a text is the same however it is cut into
chunks, and a row does not depend on the rows beside it.
"""

import dataclasses
from collections.abc import Iterable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jaxtyping import Int, Integer

from charjax.config.checks import AtLeast, checked, refuse
from charjax.config.schema import Config
from charjax.errors import InputError
from charjax.model.arguments import check_config, check_ids, check_key
from charjax.model.arithmetic import usual_promotion
from charjax.model.network import apply, initial_carry
from charjax.model.parameters import Params, as_operands, vocab_size
from charjax.model.recurrence.choose import GENERAL_RECURRENCE, Recurrence
from charjax.sampling.choice import at_ids, choose, constrained
from charjax.sampling.limits import Limits
from charjax.sampling.options import SamplingOptions
from charjax.sampling.past import Past, extended, past_of

# Numbers of noise drawn at once, at most: 64 MiB.
NOISE = 2**24

# On a GPU, where the kernels of a round are launched together and the state is not copied
# between two of its characters: 11.5 kernels a character instead of 16.
CHARACTERS_A_ROUND = 4

_AS_IT_IS, NO_LIMITS = SamplingOptions(), Limits()


class SamplingState(NamedTuple):
    """What the next character depends on."""

    logits: Array
    """Scores of the next character, `[b, v]` float32."""

    carry: Any
    """Recurrent state, leaves `[l, b, h]`."""

    position: Array
    """Characters drawn so far, int32 scalar."""

    past: Past | None = None
    """What the options need to know of the text; None where they need nothing."""


class Drawn(NamedTuple):
    """What was drawn for each row, `[b, length]`."""

    ids: Any
    """int32; -1 after the end of a row."""

    log_probs: Any = None
    """Nats under the model as it is, float32; None where they are not asked for. What
    stands after the end of a row means nothing."""

    drawn_log_probs: Any = None
    """The same under the options: what the character was drawn with."""


def _flatten(options: SamplingOptions) -> tuple[list[Any], tuple[Any, ...]]:
    kinds = [(f.name, "static" in f.metadata) for f in dataclasses.fields(options)]
    numbers = [getattr(options, name) for name, static in kinds if not static]
    return numbers, tuple(getattr(options, name) for name, static in kinds if static)


def _unflatten(static: tuple[Any, ...], numbers: Iterable[Any]) -> SamplingOptions:
    static_values, values = iter(static), iter(numbers)
    return _unchecked(
        **{
            f.name: next(static_values if "static" in f.metadata else values)
            for f in dataclasses.fields(SamplingOptions)
        }
    )


def _unchecked(**values: Any) -> SamplingOptions:
    # Not by the constructor: arrays, tracers and the like take the place of numbers.
    options = object.__new__(SamplingOptions)
    for name, value in values.items():
        object.__setattr__(options, name, value)
    return options


def _options(temperature: Any, top_k: int | None, rows: int) -> SamplingOptions:
    if np.shape(temperature) not in ((), (rows,)):
        refuse("`temperature`", temperature, f"expected one number, or [{rows}]")
    if np.ndim(temperature) == 0 and not isinstance(temperature, Tracer):
        return SamplingOptions(temperature, top_k)
    return _unchecked(**vars(SamplingOptions(top_k=top_k)) | {"temperature": temperature})


jax.tree_util.register_pytree_node(SamplingOptions, _flatten, _unflatten)


def start(config: Config, first_logits: Array, rows: int) -> SamplingState:
    """The state before any text; the first character is drawn from `first_logits [v]`."""
    logits = jnp.broadcast_to(first_logits, (rows, first_logits.shape[-1]))
    return SamplingState(logits, initial_carry(config, rows), jnp.int32(0))


def prefill(
    config: Config,
    params: Params,
    state: SamplingState,
    ids: Integer[Array | np.ndarray, "batch time"],
    length: Integer[Array | np.ndarray, " batch"],
    recurrence: Recurrence = GENERAL_RECURRENCE,
) -> SamplingState:
    """Reads text in one pass.

    Args:
      config: the run's config.
      params: parameters.
      state: the state before the text.
      ids: the text, `[b, t]`, padded on the right with any id.
      length: `[b]` int32, how many ids of each row count, at least 1.
      recurrence: its implementation, as in `apply`.

    Returns:
      The state after the text; its position is unchanged.
    """
    logits, carry = apply(
        config, params, ids, state.carry, length=length, recurrence=recurrence
    )
    return state._replace(logits=logits, carry=carry)


def repeated(state: SamplingState, copies: int) -> SamplingState:
    """The state with so many rows in place of each."""
    if copies == 1:
        return state
    by_row = jax.tree.map(
        lambda leaf: jnp.repeat(leaf, copies, 0), (state.logits, state.past)
    )
    carry = jax.tree.map(lambda leaf: jnp.repeat(leaf, copies, 1), state.carry)
    return SamplingState(by_row[0], carry, state.position, by_row[1])


@usual_promotion()
def draw(
    config: Config,
    params: Params,
    state: SamplingState,
    length: int,
    key: Array,
    options: SamplingOptions = _AS_IT_IS,
    recurrence: Recurrence = GENERAL_RECURRENCE,
    *,
    limits: Limits = NO_LIMITS,
    first_row: Array | int = 0,
    log_probs: bool = False,
) -> tuple[SamplingState, Drawn]:
    """Draws `length` characters for each row: the compiled loop.

    Args:
      config: the run's config; static under `jit`.
      params: parameters.
      state: the state to go on from.
      length: how many characters; static, so that the loop's trip count is known.
      key: PRNG key of the whole text, the same for each chunk of it.
      options: a pytree; its numbers may be arrays `[b]`, one for each row. What it says in
        text is not looked at; `limits` has it in ids.
      recurrence: its implementation, as in `apply`.
      limits: which symbols may be drawn, and what ends a text.
      first_row: the number of the first row, which its draws depend on.
      log_probs: whether to return them; static.

    Returns:
      The state after, and what was drawn.
    """
    rows, symbols = state.logits.shape
    options.check_vocabulary(symbols)
    if state.past is None and (options.remembers or limits.end is not None):
        raise InputError(
            "`state.past` is None: these options look at the text; make it with `past_of`."
        )
    width = symbols if options.top_k is None else options.top_k
    numbers = first_row + jnp.arange(rows)
    row_keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(numbers)
    params = as_operands(config.model, params, config.train.precision)

    def noise(position: Array) -> Array:
        keys = jax.vmap(lambda row: jax.random.fold_in(row, position))(row_keys)
        return jax.vmap(lambda key: jax.random.gumbel(key, (width,), jnp.float32))(keys)

    def step(state: SamplingState, noisy: Array | None) -> tuple[SamplingState, Drawn]:
        gumbel = noise(state.position) if noisy is None else noisy
        past, new = state.past, state.position + 1
        scores = constrained(state.logits, past, state.position, options, limits)
        ids, chosen = choose(scores, options, gumbel)
        drawn = Drawn(ids)
        if log_probs:
            own = at_ids(jax.nn.log_softmax(state.logits), ids)
            drawn = Drawn(ids, own, chosen)
        if past is not None:
            exhausted = ~jnp.isfinite(scores).any(-1)
            past, ids = extended(past, drawn.ids, exhausted, new, options, limits)
            drawn, ids = drawn._replace(ids=ids), jnp.maximum(ids, 0)
        logits, carry = apply(
            config, params, ids[:, None], state.carry, recurrence=recurrence
        )
        return SamplingState(logits[:, 0], carry, new, past), drawn

    # All of a chunk's noise at once, if it is not too much: one large kernel instead of
    # many small ones.
    noises = None
    if length * rows * width <= NOISE:
        noises = jax.vmap(noise)(state.position + jnp.arange(length))
    on_gpu = recurrence.place.platform == "gpu"
    unroll = CHARACTERS_A_ROUND if on_gpu else 1
    state, drawn = jax.lax.scan(step, state, noises, length, unroll=unroll)
    return state, jax.tree.map(lambda leaf: leaf.T, drawn)


@usual_promotion()
def sample(
    config: Config,
    params: Params,
    prime_ids: Integer[Array | np.ndarray, "*batch prime"],
    length: int,
    key: Array,
    temperature: Array | float = 1.0,
    top_k: int | None = None,
    *,
    options: SamplingOptions | None = None,
    limits: Limits = NO_LIMITS,
    recurrence: Recurrence = GENERAL_RECURRENCE,
) -> Int[Array, "*batch length"]:
    """New text after a prime, as ids; pure, and usable under `jit` and `vmap`.

    Args:
      config: the run's config; static under `jit`.
      params: parameters.
      prime_ids: `[p]` or `[b, p]` ids, at least one.
      length: characters to draw; static under `jit`.
      key: a typed PRNG key.
      temperature: 0 takes the likeliest character, 1 draws from the model as it is; one
        number, or `[b]`, one for each row, which is not checked.
      top_k: draw among the k likeliest characters only; static under `jit`.
      options: all that a draw may be told, instead of these two. A vocabulary makes
        `limits_of(options, vocabulary)` of what it says in text.
      limits: which symbols may be drawn, and what ends a text.
      recurrence: its implementation, as in `apply`.

    Raises:
      InputError: an empty prime, an impossible temperature or top_k, or what `apply`
        refuses.

    Returns:
      The new ids, `[length]` or `[b, length]` int32, without the prime; -1 after the end
      of a text.

    >>> import jax
    >>> from charjax import Config, ModelConfig, init, sample
    >>> config = Config(model=ModelConfig(hidden_size=16))
    >>> params = init(config, 65, jax.random.key(0))
    >>> sample(config, params, jax.numpy.array([1, 2, 3]), 5, jax.random.key(1)).shape
    (5,)
    """
    check_config(config)
    check_key(key)
    length = checked("`length`", length, Annotated[int, AtLeast(0)])
    one_text = getattr(prime_ids, "ndim", 1) == 1
    axes, symbols = "prime" if one_text else "batch prime", vocab_size(params)
    check_ids("prime_ids", prime_ids, axes, symbols)
    ids = jnp.atleast_2d(prime_ids)
    if ids.shape[1] == 0:
        raise InputError(
            "`prime_ids` is empty: sample needs at least one id to go on from."
        )
    if options is None:
        options = _options(temperature, top_k, len(ids))
    _check_limits(options, limits)
    state = start(config, jnp.zeros(symbols, jnp.float32), ids.shape[0])
    lengths = jnp.full((ids.shape[0],), ids.shape[1], jnp.int32)
    state = prefill(config, params, state, ids, lengths, recurrence)
    state = state._replace(past=past_of(ids, length, options, limits))
    new = draw(*(config, params, state, length, key, options, recurrence), limits=limits)
    return new[1].ids[0] if one_text else new[1].ids


def _check_limits(options: SamplingOptions, limits: Limits) -> None:
    found = {"ban": limits.allowed, "allow": limits.allowed, "stop": limits.stops}
    for name, ids in found.items():
        if (text := getattr(options, name)) is not None and ids is None:
            refuse(
                *(f"`options.{name}`", text),
                "here are ids only, and no characters; give "
                "`limits=limits_of(options, vocabulary)` too",
            )
