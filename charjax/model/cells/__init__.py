"""Recurrent cells: what one layer does in one step; nothing here knows time or layers.

Each file of this folder is a cell, under the name that `model.cell` gives it, and holds it
as `CELL`. A new cell is a new file and its name in `config/model.py`.

The products with the kernels belong to the recurrence: a step is given `x`, the projected
input, and `h_proj`, the projected hidden state, both `[b, g, h]`. It treats each row on its
own, though it may reduce over a row's units. A cell whose products do not fit that (one
after a gate, or one that must see `h` first) brings a `run` of its own.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from jax import Array

from charjax.config.model import ModelConfig
from charjax.model.parameter import Parameter

Vectors = Mapping[str, Array]
"""A layer's parameters but for `kernel_x` and `kernel_h`."""

Kept = tuple[Array, ...]


class HiddenState(NamedTuple):
    """State of a cell that has no other: hidden `h`, `[..., b, h]` float32."""

    h: Array


Gates = tuple[Array, ...]
"""An array for each gate."""


class Tiles(NamedTuple):
    """A step and its gradient by hand once more, for kernels that hold some units of some
    rows at a time, `[b, n]`, and each gate as an array of its own. No unit sees another.

    A kernel's memory is scarce and its arithmetic is hidden behind the products: what is
    kept is what takes least, rather than slopes.
    """

    keep: Callable[[Mapping[str, Gates], Any, Gates, Gates], tuple[Any, Kept]]
    """(vectors, state, x, h_proj) -> state after, what the reverse needs."""

    reverse: Callable[[Kept, Any], tuple[Any, Gates]]
    """As that of `Slopes`."""

    kept: int
    """How many arrays are kept, not fewer than gates."""

    through: Callable[[Kept, Gates], Gates] = lambda kept, d_x: d_x
    """As that of `Slopes`."""

    apart: tuple[int, ...] = ()
    """The gates, by their place, for which `through` is not what it is given."""

    h_stays: bool = False
    """Whether a step reads `h` itself, and not only what it was projected to."""


class Slopes(NamedTuple):
    """A step's gradient by hand, in two halves.

    The first does the step and keeps its slopes: the factors of the gradient that are known
    once the step is done. The second only multiplies by them, so that the reverse loop over
    time computes no transcendental function.

    What a state keeps from step to step is told by the part that goes: rounded to bfloat16,
    1 - f is exact enough near f = 1, where f itself would be off in the same direction at
    every step of a long window.
    """

    keep: Callable[[Vectors, Any, Array, Array], tuple[Any, Kept]]
    """(vectors, state, x, h_proj) -> state after, slopes."""

    reverse: Callable[[Kept, Any], tuple[Any, Array]]
    """(slopes, gradient of the state after) -> gradient of the state before, without what
    goes through h_proj, and gradient of x."""

    through: Callable[[Kept, Array], Array]
    """(slopes, gradient of x) -> gradient of h_proj; any axes before `[g, h]`."""

    added_to: Mapping[str, Literal["x", "h_proj"]]
    """What each vector is added to, whose gradient, summed, is the vector's."""

    tiles: Tiles | None = None
    """The same for kernels; a cell without it runs without them."""


@dataclass(frozen=True)
class Cell:
    """What tells one recurrent cell from another."""

    gates: tuple[str, ...]
    """Names of the gates, in the order of the `g` axis of kernels and projections."""

    state: type[Any]
    """A NamedTuple of float32 arrays `[..., b, h]`, one of them `h`."""

    parameters: Callable[[ModelConfig, int, bool], dict[str, Parameter]]
    """(config, width of the input, whether that is one-hot) -> a layer's parameters."""

    step: Callable[[Vectors, Any, Array, Array], Any]
    """(vectors, state, x, h_proj) -> state after."""

    slopes: Slopes | None = None
    """The step's gradient by hand; None leaves it to JAX, which is slower."""

    run: Callable[..., tuple[Array, Any]] | None = None
    """A recurrence of the cell's own, with the contract of `recurrence.plain.run`."""

    takes_ids: bool = True
    """Whether that `run` reads ids as rows of `kernel_x`, or needs features."""

    def initial_state(self, *shape: int) -> Any:
        """Zeros of the given shape, one buffer for each part of the state."""
        return self.state(*(jnp.zeros(shape, jnp.float32) for _ in self.state._fields))


def cell_named(name: str) -> Cell:
    """The cell of a `model.cell`.

    >>> cell_named("gru").gates
    ('reset', 'update', 'new')
    """
    return importlib.import_module(f"{__name__}.{name}").CELL


def names() -> list[str]:
    """The cells there are."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def by_gate(*values: Array) -> Array:
    """`[..., h]` for each gate to `[..., g, h]`, as choices rather than a concatenation,
    which fuse with what reads them."""
    gate = jnp.arange(len(values))[:, None]
    result = values[-1][..., None, :]
    for k in reversed(range(len(values) - 1)):
        result = jnp.where(gate == k, values[k][..., None, :], result)
    return result
