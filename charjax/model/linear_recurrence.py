"""Cells whose gates see the input alone, so that all steps are computed at once.

The state is h[t] = keep[t] * h[t - 1] + new[t]. Two steps after each other are one of the
same kind, so an associative scan finds all states in a number of rounds that grows with
the logarithm of the steps (Blelloch 1990; Martin and Cundy 2018). `keep` lies from 0 to 1,
so nothing overflows; in logarithms there would be no state of zero and no reset.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Integer

from charjax.config.model import ModelConfig
from charjax.model.cells import Cell, HiddenState, Vectors
from charjax.model.parameter import Parameter, layer
from charjax.model.recurrence.layout import GENERAL, Layout
from charjax.model.recurrence.place import ANYWHERE, Place
from charjax.model.recurrence.plain import zeroed
from charjax.model.recurrence.products import are_ids, lookup, project

Coefficients = Callable[[Array], tuple[Array, Array]]
"""Projected inputs `[..., g, h]` -> how much of the state is kept, from 0 to 1, and what is
new; `[..., h]`."""

Bias = Callable[[ModelConfig], tuple[float, ...] | float]


def linear_cell(gates: tuple[str, ...], coefficients: Coefficients, bias: Bias) -> Cell:
    """A cell with no hidden-to-hidden kernel; `bias` is that of each gate at birth."""

    def parameters(config: ModelConfig, width: int, one_hot: bool) -> dict[str, Parameter]:
        usual = layer(len(gates), config.hidden_size, width, one_hot, bias=bias(config))
        del usual["kernel_h"]
        return usual

    def step(vectors: Vectors, state: Any, x: Array, h_proj: Array) -> HiddenState:
        del h_proj
        keep, new = coefficients(x + vectors["bias"])
        return HiddenState(keep * state.h + new)

    run = partial(_run, coefficients)
    return Cell(gates, HiddenState, parameters, step, run=run)


def _run(
    coefficients: Coefficients,
    cell: Cell,
    dtype: DTypeLike,
    layer: dict[str, Array],
    inputs: Float[Array, "time batch width"] | Integer[Array, "time batch"],
    state: Any,
    reset: Bool[Array, "time batch"] | None = None,
    length: Integer[Array, " batch"] | None = None,
    layout: Layout = GENERAL,
    place: Place = ANYWHERE,
) -> tuple[Float[Array, "time batch hidden"], Any]:
    """What `recurrence.plain.run` does."""
    del cell
    if are_ids(inputs):
        x = lookup(dtype, inputs, layer["kernel_x"])
    else:
        x = project(dtype, inputs, layer["kernel_x"], layout)
    keep, new = coefficients(x + layer["bias"])
    if reset is not None:
        keep = jnp.where(reset[..., None], 0.0, keep)
        # Chosen: a state that is no number times zero is none either.
        state = zeroed(state, reset[0])
    if length is not None:
        going = (jnp.arange(len(x))[:, None] < length)[..., None]
        keep, new = jnp.where(going, keep, 1.0), jnp.where(going, new, 0.0)
    hidden: Any = linear_scan(keep, new, state.h, place.platform != "cpu")
    return hidden, HiddenState(hidden[-1])


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def linear_scan(
    keep: Float[Array, "time batch hidden"],
    new: Float[Array, "time batch hidden"],
    first: Float[Array, "batch hidden"],
    at_once: bool = True,
) -> Float[Array, "time batch hidden"]:
    """keep[t] * h[t - 1] + new[t] for every step, from the state `first` on.

    `at_once` is the associative scan, with more arithmetic than one step after the other,
    and few rounds; a CPU, which has nothing to do it with at once, is faster without.

    >>> keep, new = jnp.array([[[0.5]], [[0.0]]]), jnp.ones((2, 1, 1))
    >>> linear_scan(keep, new, jnp.array([[4.0]])).ravel().tolist()
    [3.0, 1.0]
    """
    return _solved(keep, new.at[0].add(keep[0] * first), at_once)


def _solved(keep: Array, new: Array, at_once: bool, reverse: bool = False) -> Array:
    def after_each_other(one: Any, other: Any) -> Any:
        (keep, new), (keep_after, new_after) = one, other
        return keep * keep_after, keep_after * new + new_after

    def step(state: Array, x: Any) -> tuple[Array, Array]:
        state = x[0] * state + x[1]
        return state, state

    if at_once:
        return lax.associative_scan(after_each_other, (keep, new), reverse=reverse)[1]
    return lax.scan(step, jnp.zeros_like(new[0]), (keep, new), reverse=reverse)[1]


def _forward(keep: Array, new: Array, first: Array, at_once: bool) -> tuple[Array, Any]:
    hidden = _solved(keep, new.at[0].add(keep[0] * first), at_once)
    return hidden, (keep, hidden, first)


def _backward(at_once: bool, kept: Any, d_hidden: Array) -> tuple[Array, Array, Array]:
    # The same from the end: a state's gradient is kept by the step after it.
    keep, hidden, first = kept
    later = jnp.concatenate([keep[1:], jnp.zeros_like(keep[:1])])
    d_new = _solved(later, d_hidden, at_once, reverse=True)
    before = jnp.concatenate([first[None], hidden[:-1]])
    return d_new * before, d_new, d_new[0] * keep[0]


linear_scan.defvjp(_forward, _backward)
