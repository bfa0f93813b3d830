"""Texts of any length, read and written through programs of few shapes."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float32, Integer

from charjax.config.schema import Config
from charjax.evaluation.evaluate import jitted_step
from charjax.model.network import initial_carry, of_network
from charjax.model.parameters import Params
from charjax.model.recurrence.choose import Recurrence
from charjax.sampling import draw as sampling
from charjax.sampling.limits import Limits
from charjax.sampling.options import SamplingOptions
from charjax.sampling.past import EXHAUSTED, LENGTH
from charjax.text.batching import Batch

# Characters drawn between two looks at the host: long enough that the device is never
# idle, short enough that text appears as it is made.
CHUNK = 128
# Longest piece of text read in one pass, which bounds memory and compiled shapes.
PASS = 1024

jitted_prefill = jax.jit(sampling.prefill, static_argnums=(0, 5))
jitted_draw = jax.jit(sampling.draw, static_argnums=(0, 3, 6), static_argnames="log_probs")


def pieces(texts: Sequence[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Cuts the ids of each row into pieces `[rows, <= PASS]`, padded to a power of two so
    that few shapes are compiled, with the number of ids that count in each row."""
    for first in range(0, max(map(len, texts)), PASS):
        parts = [ids[first : first + PASS].astype(np.int32) for ids in texts]
        counts = np.array([len(part) for part in parts], np.int32)
        width = max(8, 1 << (int(counts.max()) - 1).bit_length())
        yield np.stack([np.pad(part, (0, width - len(part))) for part in parts]), counts


def read(
    config: Config,
    params: Params,
    state: sampling.SamplingState,
    texts: Sequence[np.ndarray],
    recurrence: Callable[[int, int], Recurrence],
) -> sampling.SamplingState:
    """The state after each row has read its ids `[n]`, which may be none; `recurrence` is
    asked for the one that suits so many rows and steps."""
    config, state = of_network(config), _placed(state, params)
    for ids, counts in pieces(texts):
        suitable = recurrence(*ids.shape)
        after = jitted_prefill(config, params, state, ids, np.maximum(counts, 1), suitable)
        state = after if counts.all() else _where(counts > 0, after, state)
    return state


def scored(
    config: Config,
    params: Params,
    ids: Integer[np.ndarray, " symbols"],
    recurrence: Callable[[int, int], Recurrence],
) -> Float32[np.ndarray, " scored"]:
    """Nats of each id after the first, `[n - 1]`."""
    carry, nats = initial_carry(config, 1), []
    inputs, targets = pieces([ids[:-1]]), pieces([ids[1:]])
    for (piece, counts), (target, _) in zip(inputs, targets, strict=True):
        mask = np.arange(piece.shape[1]) < counts[:, None]
        batch = Batch(piece, target, mask, np.zeros((1, 1), bool))
        suitable = recurrence(*piece.shape)
        carry, each = jitted_step(of_network(config), params, carry, batch, suitable)
        nats.append(np.asarray(each)[0, : counts[0]])
    return np.concatenate(nats)


@jax.jit
def _where(rows: Array, one: Any, other: Any) -> Any:
    """The first state in the given rows, the other elsewhere."""
    logits = jnp.where(rows[:, None], one.logits, other.logits)
    carry = jax.tree.map(
        lambda a, b: jnp.where(rows[:, None], a, b), one.carry, other.carry
    )
    return one._replace(logits=logits, carry=carry)


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Some characters of each row."""

    drawn: sampling.Drawn
    """NumPy arrays `[rows, <= CHUNK]`."""

    ended: np.ndarray | None
    """Why each row has ended by now, as `past.ENDS` has it; None where none can."""

    state: sampling.SamplingState
    """Behind CHUNK characters, all of them or not."""


def drawn(
    config: Config,
    params: Params,
    state: sampling.SamplingState,
    length: int | None,
    key: Array,
    options: SamplingOptions,
    recurrence: Recurrence,
    *,
    limits: Limits,
    first_row: int = 0,
    log_probs: bool = False,
) -> Iterator[Chunk]:
    """`length` new characters of each row, without end where it is None; fewer where all
    rows have ended."""
    config, state = of_network(config), _placed(state, params)
    # What it says in text is in the limits, and would compile anew.
    options = dataclasses.replace(options, ban=None, allow=None, stop=None)
    numbers: Any = jax.tree.map(jnp.float32, options)
    waiting, left = None, length
    while left is None or left > 0:
        state, made = jitted_draw(
            *(config, params, state, CHUNK, key, numbers, recurrence),
            limits=limits,
            first_row=first_row,
            log_probs=log_probs,
        )
        past = state.past
        if past is not None:
            chunk = _chunk(made, past.ended, left, state)
            yield chunk
            if chunk.ended is not None and chunk.ended.all():
                return
        else:
            # The next chunk is under way while this one is looked at.
            if waiting is not None:
                yield _chunk(waiting[0], None, None, waiting[1])
            waiting = made, state
        left = None if left is None else left - CHUNK
    if waiting is not None:
        made, state = waiting
        yield _chunk(made, None, None if left is None else left + CHUNK, state)


def _chunk(
    made: Any, ended: Array | None, left: int | None, state: sampling.SamplingState
) -> Chunk:
    """The first `left` characters that were made, and what has ended by them."""
    arrays = jax.tree.map(np.asarray, made)
    why = None if ended is None else np.asarray(ended)
    if left is not None and left < CHUNK and why is not None:
        # The last character of a text is drawn; what comes after it, or in place of one
        # where nothing is left, is -1.
        last = arrays.ids[:, left - 1], arrays.ids[:, left]
        why = np.where(np.where(why == EXHAUSTED, *last) < 0, why, LENGTH)
    return Chunk(jax.tree.map(lambda leaf: leaf[:, :left], arrays), why, state)


def _placed(state: sampling.SamplingState, params: Params) -> sampling.SamplingState:
    """The state on the device of the parameters, where the programs leave it; one that
    lies nowhere in particular would have each compiled twice."""
    first = jax.tree.leaves(params)[0]
    devices = first.devices() if isinstance(first, Array) else ()
    return jax.device_put(state, *devices) if len(devices) == 1 else state
