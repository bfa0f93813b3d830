"""The kernels of one step on a GPU, and the loop that calls them.

Each runs once for every tile of rows and units, and is given references to whole arrays:
what it reads, and what it changes, which is the same memory before and after.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as backend

from charjax.model.recurrence.gpu import steps_a_round
from charjax.model.recurrence.layout import precision_of
from charjax.model.recurrence.place import Place
from charjax.model.recurrence.triton_steps import Step

# The least that a product of tensor cores takes.
SMALLEST = 16
# Enough programs to give each multiprocessor of a large GPU one.
PROGRAMS = 96
# All of them call the same kernel, which is compiled once.
MOST_STEPS_A_ROUND = 10


def loop(
    kernel: Any, step: Step, place: Place, order: range, read: Any, changed: Any
) -> Any:
    """Runs a kernel at each step in order; what it changes, it changes in place."""
    rows, units = changed[-1].shape
    tile = _tile(rows, units)
    first = 1 + len(jax.tree.leaves(read))
    arrays = (jnp.full(1, order.start, jnp.int32), *changed)
    call = pl.pallas_call(
        partial(kernel, step, tile, order.step),
        out_shape=[jax.ShapeDtypeStruct(array.shape, array.dtype) for array in arrays],
        grid=(rows // tile[0], units // tile[1]),
        input_output_aliases={first + n: 1 + n for n in range(len(changed))},
        interpret=place.platform == "cpu",
        compiler_params=backend.CompilerParams(num_warps=4, num_stages=3),
    )

    def body(arrays: Any, _: None) -> tuple[Any, None]:
        t, *changed = arrays
        return tuple(call(t, read, *changed)), None

    unroll = steps_a_round(len(order), MOST_STEPS_A_ROUND)
    return lax.scan(body, arrays, length=len(order), unroll=unroll)[0][1:]


def _tile(rows: int, units: int) -> tuple[int, int]:
    """Rows and units of a program: as many as leave enough programs.

    >>> _tile(128, 512), _tile(1024, 512), _tile(16, 48)
    ((32, 16), (64, 32), (16, 16))
    """
    for m, n in ((64, 32), (64, 16), (32, 32), (32, 16)):
        if not (rows % m or units % n) and rows * units >= PROGRAMS * m * n:
            return m, n
    return SMALLEST, SMALLEST


def _at(tile: tuple[int, int]) -> tuple[Any, Any]:
    """The rows and units of this program."""
    rows, units = (pl.ds(pl.program_id(axis) * tile[axis], tile[axis]) for axis in (0, 1))
    return rows, units


def _part(units: int) -> int:
    """How many hidden units a product takes at once."""
    return next(size for size in (64, 32, SMALLEST) if units % size == 0)


def _multiplied(x: Array, y: Array) -> Array:
    precision = precision_of(x.dtype)
    return jnp.dot(x, y, precision=precision, preferred_element_type=jnp.float32)


def _read_biases(given: Any, units: Any) -> Any:
    return {
        name: [ref[gate, units][None, :] for gate in range(ref.shape[0])]
        for name, ref in given.items()
    }


def forward(
    step: Step,
    tile: Any,
    onwards: int,
    now: Any,
    read: Any,
    xs: Any,
    hidden: Any,
    kept: Any,
    carried: Any,
    next_out: Any,
    gates_out: Any,
    hidden_out: Any,
    kept_out: Any,
    carried_out: Any,
) -> None:
    """A step, of one tile of rows and units: the product of all hidden units, and what the
    cell makes of it."""
    del kept
    (given, kernel, asked), t = read, now[0]
    # Each step tells the next which it is: a counter would be a kernel of its own.
    next_out[0] = t + onwards
    (rows, units), (size, gates, _) = _at(tile), kernel.shape
    part = _part(size)

    def add(k: Array, sums: Any) -> Any:
        some = pl.ds(k * part, part)
        h = hidden[t, rows, some]
        return tuple(
            total + _multiplied(h, kernel[some, gate, units])
            for gate, total in enumerate(sums)
        )

    zero = jnp.zeros(tile, jnp.float32)
    h_proj = lax.fori_loop(0, size // part, add, (zero,) * gates)
    before = carried[rows, units]
    if asked is not None:
        again = asked[t, rows][:, None] != 0
        h_proj = tuple(jnp.where(again, 0.0, product) for product in h_proj)
        before = jnp.where(again, 0.0, before)
    x = [xs[t, rows, gate, units].astype(jnp.float32) for gate in range(gates)]
    h, after, for_reverse, one_more = step.forward(
        x, h_proj, _read_biases(given, units), before
    )
    for gate, value in enumerate(for_reverse):
        gates_out[t, rows, gate, units] = value.astype(gates_out.dtype)
    hidden_out[t + 1, rows, units] = h.astype(hidden_out.dtype)
    where = t + 1 if step.kept_first else t
    kept_out[where, rows, units] = one_more.astype(kept_out.dtype)
    carried_out[rows, units] = after


def backward(
    step: Step,
    tile: Any,
    onwards: int,
    now: Any,
    read: Any,
    gates: Any,
    kept: Any,
    d_carried: Any,
    next_out: Any,
    d_out: Any,
    kept_out: Any,
    d_carried_out: Any,
) -> None:
    """The reverse of a step, of one tile: the product of the gate gradients of the step
    after it, and what the cell makes of that."""
    (given, kernel, asked, hidden, d_hidden), t = read, now[0]
    next_out[0] = t + onwards
    (rows, units), (size, count, _) = _at(tile), kernel.shape
    part, last = _part(size), gates.shape[0] - 1
    after = jnp.minimum(t + 1, last)

    def add(k: Array, total: Array) -> Array:
        some = pl.ds(k * part, part)
        for gate in range(count):
            d = gates[after, rows, gate, some]
            total += _multiplied(d, kernel[units, gate, some].T)
        return total

    # After the last step there is none whose gradient comes back.
    d_h = lax.fori_loop(0, size // part, add, jnp.zeros(tile, jnp.float32))
    d_h = jnp.where(t < last, d_h, 0.0)
    d = d_carried[rows, units]
    h = hidden[t, rows, units].astype(jnp.float32)
    one_more = kept[t, rows, units].astype(jnp.float32)
    if asked is not None:
        cut = (asked[after, rows][:, None] != 0) & (t < last)
        d_h, d = jnp.where(cut, 0.0, d_h), jnp.where(cut, 0.0, d)
        again = asked[t, rows][:, None] != 0
        h, one_more = jnp.where(again, 0.0, h), jnp.where(again, 0.0, one_more)
    d_h = d_h + d_hidden[t, rows, units]
    now = [gates[t, rows, gate, units].astype(jnp.float32) for gate in range(count)]
    d_x, d_h_proj, d = step.reverse(now, one_more, _read_biases(given, units), h, d_h, d)
    for gate, value in enumerate(d_h_proj):
        d_out[t, rows, gate, units] = value.astype(d_out.dtype)
    if not step.kept_first:
        kept_out[t, rows, units] = d_x[-1].astype(kept_out.dtype)
    d_carried_out[rows, units] = d
