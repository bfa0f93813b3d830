"""Texts of any length, read and written through programs of few shapes."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from charjax.config.schema import Config
from charjax.model.network import of_network
from charjax.model.parameters import Params
from charjax.model.recurrence.choose import Recurrence
from charjax.sampling import draw as sampling
from charjax.sampling.options import SamplingOptions

# Characters drawn between two looks at the host: long enough that the device is never
# idle, short enough that text appears as it is made.
CHUNK = 128
# Longest piece of text read in one pass, which bounds memory and compiled shapes.
PASS = 1024

jitted_prefill = jax.jit(sampling.prefill, static_argnums=(0, 5))
jitted_draw = jax.jit(sampling.draw, static_argnums=(0, 3, 6))


def pieces(ids: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Cuts ids into pieces of at most `PASS`, each padded to a power of two so that few
    shapes are compiled, with the number of ids that count."""
    for first in range(0, len(ids), PASS):
        piece = ids[first : first + PASS].astype(np.int32)
        width = max(8, 1 << (len(piece) - 1).bit_length())
        yield np.pad(piece, (0, width - len(piece))), len(piece)


def read(
    config: Config,
    params: Params,
    state: sampling.SamplingState,
    ids: np.ndarray,
    recurrence: Callable[[int, int], Recurrence],
) -> sampling.SamplingState:
    """The state of one row after it has read `ids [n]`; `recurrence` is asked for the one
    that suits so many rows and steps."""
    config, state = of_network(config), _placed(state, params)
    for piece, count in pieces(ids):
        lengths, suitable = np.full(1, count, np.int32), recurrence(1, len(piece))
        state = jitted_prefill(config, params, state, piece[None], lengths, suitable)
    return state


def drawn(
    config: Config,
    params: Params,
    state: sampling.SamplingState,
    length: int,
    key: Array,
    options: SamplingOptions,
    recurrence: Recurrence,
) -> Iterator[np.ndarray]:
    """`length` new ids of each row in chunks `[rows, <= CHUNK]`."""
    config, state = of_network(config), _placed(state, params)
    numbers: Any = jax.tree.map(jnp.float32, options)
    waiting, left = None, length
    while left > 0:
        state, ids = jitted_draw(config, params, state, CHUNK, key, numbers, recurrence)
        # The next chunk is under way while this one is looked at.
        if waiting is not None:
            yield np.asarray(waiting)
        waiting, left = ids, left - CHUNK
    if waiting is not None:
        yield np.asarray(waiting)[:, : left + CHUNK]


def _placed(state: sampling.SamplingState, params: Params) -> sampling.SamplingState:
    """The state on the device of the parameters, where the programs leave it; one that
    lies nowhere in particular would have each compiled twice."""
    first = jax.tree.leaves(params)[0]
    devices = first.devices() if isinstance(first, Array) else ()
    return jax.device_put(state, *devices) if len(devices) == 1 else state
