"""One kernel a step on GPUs, by Pallas and Triton: the product and what follows it.

All arrays lie in memory whole, and a kernel reads and writes step t of them: nothing is
cut out or put in, so that a step is one launch. Forward, the projected inputs become what
the reverse loop needs, in place; there, they become the gate gradients, in place again. A
program has a tile of rows and units, multiplies all hidden units of these rows, and keeps
what it computes from the product in registers.

LSTM and GRU, rows and units in multiples of 16; everything else goes to `gpu.py`. Rounding
is as there.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Integer

from charjax.config.model import ModelConfig
from charjax.model.cells import Cell, cell_named
from charjax.model.recurrence import gpu
from charjax.model.recurrence.gpu import exact, gradients
from charjax.model.recurrence.layout import GENERAL, Layout
from charjax.model.recurrence.place import ANYWHERE, Place, over_rows
from charjax.model.recurrence.plain import Layer, vectors, zeroed
from charjax.model.recurrence.products import are_ids, read_rows
from charjax.model.recurrence.triton_kernels import SMALLEST, backward, forward, loop
from charjax.model.recurrence.triton_steps import STEPS, Step


def why_not(
    platform: str,
    model: ModelConfig,
    batch: tuple[int, int],
    precision: str,
    mesh: Mapping[str, int],
) -> str | None:
    """Why it cannot run a model somewhere, for people; None where it can."""
    del precision
    if platform != "gpu":
        return f"its kernels are for GPUs, not for a {platform.upper()}"
    if model.cell not in STEPS:
        return f"it has no kernel for the cell {model.cell!r}"
    # The first axis of a mesh is that of rows.
    shares, *others = mesh.values()
    if any(count > 1 for count in others):
        return "a kernel needs all units of a layer on one device"
    if batch[0] % (shares * SMALLEST) or model.hidden_size % SMALLEST:
        return f"rows on a device and units must be multiples of {SMALLEST}"
    return None


def run(
    cell: Cell,
    dtype: DTypeLike,
    layer: Layer,
    inputs: Float[Array, "time batch width"] | Integer[Array, "time batch"],
    state: Any,
    reset: Bool[Array, "time batch"] | None = None,
    length: Integer[Array, " batch"] | None = None,
    layout: Layout = GENERAL,
    place: Place = ANYWHERE,
) -> tuple[Float[Array, "time batch hidden"], Any]:
    """What `plain.run` does; what the kernels do not serve is left to `gpu`."""
    step = next((STEPS[name] for name in STEPS if cell == cell_named(name)), None)
    shares = 1 if place.mesh is None else place.mesh.shape[place.rows_axis]
    alone = place.mesh is None or place.mesh.size == shares
    rows, units = state.h.shape
    fits = rows % (shares * SMALLEST) == 0 and units % SMALLEST == 0
    if not (step and alone and fits and length is None and len(inputs) > 1):
        return gpu.run(cell, dtype, layer, inputs, state, reset, length, layout, place)
    return _run(cell, step, jnp.dtype(dtype), place, layer, inputs, state, reset)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def _run(
    cell: Cell, step: Step, dtype: Any, place: Place, *arguments: Any
) -> tuple[Array, Any]:
    return _forward(cell, step, dtype, place, *arguments)[0]


def _forward(
    cell: Cell,
    step: Step,
    dtype: Any,
    place: Place,
    layer: Any,
    inputs: Any,
    state: Any,
    reset: Any,
) -> Any:
    xs = gpu.projected(dtype, layer, inputs)
    if are_ids(inputs):
        xs = read_rows(layer["kernel_x"].astype(dtype), xs)
    asked = None if reset is None else reset.astype(jnp.int32)
    carried = getattr(state, step.carried)
    (xs, hidden, kept), carried = over_rows(
        place,
        partial(_forward_loop, step, dtype, place),
        (vectors(layer), layer["kernel_h"].astype(dtype)),
        (xs, asked),
        (state.h, carried),
    )
    last = state._replace(h=exact(dtype, hidden[-1]))._replace(**{step.carried: carried})
    inputs = inputs if are_ids(inputs) else inputs.astype(dtype)
    residuals = (layer, inputs, reset, asked, xs, hidden, kept)
    return (exact(dtype, hidden[1:]), last), residuals


def _forward_loop(
    step: Step, dtype: Any, place: Place, whole: Any, by_step: Any, states: Any
) -> Any:
    """(What the reverse loop needs, hidden states from the first on, one array more), what
    is carried after the last step."""
    (given, kernel), (xs, asked), (h, carried) = whole, by_step, states
    steps = len(xs)
    hidden = _with_first(h.astype(dtype), steps)
    kept = jnp.zeros_like(hidden)
    if step.kept_first:
        kept = _with_first(carried.astype(dtype), steps)
    read = (given, kernel, asked)
    changed = (xs, hidden, kept, carried)
    *by_step, carried = loop(forward, step, place, range(steps), read, changed)
    return tuple(by_step), carried


def _with_first(first: Array, steps: int) -> Array:
    """Room for so many steps after a first array."""
    return jnp.zeros((steps + 1, *first.shape), first.dtype).at[0].set(first)


def _backward(
    cell: Cell, step: Step, dtype: Any, place: Place, residuals: Any, cotangents: Any
) -> Any:
    layer, inputs, reset, asked, xs, hidden, kept = residuals
    d_hidden, d_last = cotangents
    if step.carried != "h":
        d_hidden = d_hidden.at[-1].add(d_last.h)
    d_carried, kernel = getattr(d_last, step.carried), layer["kernel_h"].astype(dtype)
    (d_h_proj, d_n), d_carried = over_rows(
        place,
        partial(_backward_loop, step, place),
        (vectors(layer), kernel),
        (hidden, d_hidden, asked, xs, kept),
        d_carried,
    )
    gates = (d_h_proj,)
    if not step.kept_first:
        gates = (d_h_proj.at[:, :, -1].set(d_n[:-1]), d_h_proj)
    d_state = d_last._replace(h=jnp.zeros_like(d_last.h))
    d_state = d_state._replace(**{step.carried: d_carried})
    d_h = GENERAL.back(d_h_proj[0], kernel, dtype)
    first = None if reset is None else reset[0]
    d_state = zeroed(d_state._replace(h=d_state.h + d_h), first)
    before = zeroed(hidden[:-1], reset)
    d_layer, d_inputs = gradients(cell, dtype, layer, inputs, before, gates)
    return d_layer, d_inputs, d_state, None


_run.defvjp(_forward, _backward)


def _backward_loop(
    step: Step, place: Place, whole: Any, by_step: Any, d_carried: Array
) -> Any:
    """(Gradients of the projected hidden states and, where those of the projected inputs
    differ, of the last gate of these), gradient of what is carried, before the first step
    and its reset."""
    (given, kernel), (hidden, d_hidden, asked, gates, kept) = whole, by_step
    read = (given, kernel, asked, hidden, d_hidden)
    backwards = range(len(gates) - 1, -1, -1)
    changed = (gates, kept, d_carried)
    *by_step, d_carried = loop(backward, step, place, backwards, read, changed)
    return tuple(by_step), d_carried
