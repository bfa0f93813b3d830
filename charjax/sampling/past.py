"""What a draw knows of the text so far, and whether that has ended.

The last ids of each row lie in a buffer that moves by one place a character, so that the
newest is always at its end and every position in it is known when the loop is compiled.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int, Int32

from charjax.errors import InputError
from charjax.sampling.limits import Limits
from charjax.sampling.options import SamplingOptions

ENDS = ("length", "stop", "end", "exhausted")
"""Why a text ends: it is as long as asked, has written a stop string or the end symbol, or
nothing was left to draw. In this order they are the codes in `Past.ended`."""

LENGTH, STOP, END, EXHAUSTED = range(4)


# Comparisons that are written out; more would take the compiler too long.
_UNROLLED = 64


class Past(NamedTuple):
    """The text so far, as much of it as the options look at."""

    text: Array
    """The last ids of each row, `[b, n]` int32, -1 before the text; n may be 0."""

    ended: Array
    """`[b]` int32: 0 where a row goes on, else the place in `ENDS`."""


def past_of(
    prime: Int[Array | np.ndarray, "batch prime"],
    length: int | None,
    options: SamplingOptions,
    limits: Limits,
) -> Past | None:
    """What to know of a text behind its prime, before `length` more characters, or without
    end; None where nothing is. Shorter primes have -1 in front."""
    if not options.remembers and limits.end is None:
        return None
    rows, known = prime.shape
    width = remembered(known, length, options, limits)
    prime = jnp.asarray(prime, jnp.int32)[:, max(0, known - width) :]
    text = jnp.pad(prime, ((0, 0), (width - prime.shape[1], 0)), constant_values=-1)
    return Past(text, jnp.zeros(rows, jnp.int32))


def remembered(
    known: int, length: int | None, options: SamplingOptions, limits: Limits
) -> int:
    """How many of the last ids the options look at, of so many known and `length` more."""
    width = 0 if limits.stops is None else limits.stops.shape[1]
    # A power of two, so that few lengths are compiled.
    whole = None if length is None else 1 << (known + length).bit_length()
    if options.repetition_penalty is not None:
        window = options.repetition_window
        width = max(width, window if whole is None else min(window, whole))
    if options.no_repeat is not None:
        if whole is None:
            raise InputError(
                "`no_repeat` looks at the whole text: give a `length`, so that its size is "
                "known beforehand."
            )
        width = max(width, whole)
    return width


def extended(
    past: Past,
    ids: Int[Array, " batch"],
    exhausted: Bool[Array, " batch"],
    new: Int[Array, ""],
    options: SamplingOptions,
    limits: Limits,
) -> tuple[Past, Int32[Array, " batch"]]:
    """The past after one more id of each row, and that id, -1 where a row has ended before;
    `new` counts new characters, this one included."""
    out = (past.ended != 0) | exhausted
    text = jnp.concatenate([past.text, ids[:, None]], 1)[:, 1:]
    ended = jnp.where((past.ended == 0) & exhausted, EXHAUSTED, past.ended)
    enough = new >= options.min_length
    if limits.stops is not None:
        ended = jnp.where(~out & enough & _stopped(text, limits.stops), STOP, ended)
    if limits.end is not None:
        ended = jnp.where(~out & (ids == limits.end), END, ended)
    return Past(text, ended.astype(jnp.int32)), jnp.where(out, -1, ids).astype(jnp.int32)


def _stopped(text: Array, stops: Array | np.ndarray) -> Array:
    tail = text[:, None, text.shape[1] - stops.shape[1] :]
    return ((tail == stops) | (jnp.asarray(stops) < 0)).all(-1).any(-1)


def penalized(
    logits: Float[Array, "batch vocab"], text: Int[Array, "batch n"], power: Array | float
) -> Float[Array, "batch vocab"]:
    """Log-probabilities, those of symbols in the text times `power`.

    >>> logits, text = jnp.log(jnp.array([[0.5, 0.5]])), jnp.array([[1]])
    >>> penalized(logits, text, 2.0).round(3)
    Array([[-0.693, -1.386]], dtype=float32)
    """
    scores = jax.nn.log_softmax(logits)
    power = jnp.broadcast_to(jnp.asarray(power, jnp.float32), scores.shape[:1])
    return jnp.where(
        _marked(text, text >= 0, scores.shape), scores * power[:, None], scores
    )


def repeating(
    text: Int[Array, "batch n"], length: int, symbols: int
) -> Bool[Array, "batch vocab"]:
    """The symbols that would repeat a passage of `length` characters.

    >>> repeating(jnp.array([[-1, 0, 1, 2, 0]]), 2, 3)
    Array([[False,  True, False]], dtype=bool)
    """
    context, last = length - 1, text.shape[1]
    places = last - context
    if places < 1:
        return jnp.zeros((len(text), symbols), bool)
    # Before the text there is -1, and nothing but -1.
    same = text[:, :places] >= 0

    def compared(k: Any, same: Array) -> Array:
        passages = jax.lax.dynamic_slice_in_dim(text, k, places, 1)
        return same & (passages == jax.lax.dynamic_slice_in_dim(text, places + k, 1, 1))

    if context <= _UNROLLED:
        for k in range(context):
            same = compared(k, same)
    else:
        # From the end, where few places stay after a few characters.
        _, same = jax.lax.while_loop(
            lambda left: (left[0] > 0) & left[1].any(),
            lambda left: (left[0] - 1, compared(left[0] - 1, left[1])),
            (context, same),
        )
    return _marked(text[:, context:], same, (len(text), symbols))


def _marked(ids: Array, counts: Array, shape: tuple[int, ...]) -> Array:
    """Where an id that counts occurs, `[b, v]`."""
    rows = jnp.arange(shape[0])[:, None]
    ids = jnp.where(counts, ids, shape[1])
    return jnp.zeros(shape, bool).at[rows, ids].set(True, mode="drop")
