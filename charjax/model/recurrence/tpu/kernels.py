"""What the kernels compute, for any cell: `block` time steps of all rows at a time.

Gates lie side by side along the lanes, `[..., g * h]`, and units are worked on a tile at a
time, so that the pointwise part of one tile runs beside the products of the next. Gradients
go to the units of a tile by a product with the gate gradients of the step before them in
the reverse order, which wait in `operand`; so there, too, each tile has its product to run
beside.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl

from charjax.model.cells import Cell, Tiles
from charjax.model.recurrence.layout import precision_of
from charjax.model.recurrence.tpu.blocks import UNITS


def forward(
    given: Any, out: Any, operand: Any, *, cell: Cell, tiles: Tiles, names: tuple[str, ...]
) -> None:
    """Steps of one block: hidden states, what the reverse needs, and the state after."""
    first, last, kernel_h = given["first"], out["last"], given["kernel_h"]
    dtype, exact = kernel_h.dtype, given["vectors"].dtype
    block, hidden, gates = len(given["x"]), kernel_h.shape[0], len(cell.gates)

    @pl.when(pl.program_id(0) == 0)
    def _() -> None:
        for field, value in zip(last, first, strict=True):
            field[...] = value[...]
        operand[0] = first.h[...].astype(dtype)

    for k in range(block):
        now, after = k % 2, (k + 1) % 2
        if given["reset"] is not None:
            asked = given["reset"][k, :, :1].astype(exact)
            for field in last:
                field[...] = _zeroed(field[...], asked)
            operand[now] = _zeroed(operand[now], asked)
        x, h = given["x"][k], operand[now]
        for units in _tiles(hidden):
            lanes = [_shifted(units, gate * hidden) for gate in range(gates)]
            vectors = {
                name: tuple(given["vectors"][row : row + 1, at] for at in lanes)
                for row, name in enumerate(names)
            }
            state, kept = tiles.keep(
                vectors,
                cell.state(*(field[:, units] for field in last)),
                tuple(_product(x, given["kernel_x"][:, at]) for at in lanes),
                tuple(_product(h, kernel_h[:, at]) for at in lanes),
            )
            for name, field in zip(state._fields, last, strict=True):
                # Where a step sees h only through the product, only the last one counts.
                if name != "h" or tiles.h_stays or k == block - 1:
                    field[:, units] = getattr(state, name)
            operand[after, :, units] = state.h.astype(dtype)
            out["hidden"][k, :, units] = state.h.astype(dtype)
            if "kept" in out:
                for part, value in enumerate(kept):
                    at = _shifted(units, part * hidden)
                    out["kept"][k, :, at] = value.astype(dtype)
    if block % 2:
        operand[0] = operand[1]


def backward(given: Any, out: Any, operand: Any, *, cell: Cell, tiles: Tiles) -> None:
    """Steps of one block, the last first: gate gradients, and the state's gradient but for
    what goes through the product of the first step."""
    d_state, kernel = out["first"], given["kernel"]
    dtype, exact = kernel.dtype, out["sums_x"].dtype
    block, hidden, gates = len(given["d_hidden"]), kernel.shape[1], len(cell.gates)

    @pl.when(pl.program_id(0) == 0)
    def _() -> None:
        for name, field in d_state.items():
            last = given["last"].get(name)
            field[...] = jnp.zeros_like(field) if last is None else last[...]
        for sums in jax.tree.leaves((out["sums_x"], out["sums_h"])):
            sums[...] = jnp.zeros_like(sums)
        operand[0] = jnp.zeros_like(operand[0])

    for k in reversed(range(block)):
        now, after = (block - 1 - k) % 2, (block - k) % 2
        for units in _tiles(hidden):
            lanes = [_shifted(units, gate * hidden) for gate in range(gates)]
            kept = tuple(
                given["kept"][k, :, _shifted(units, part * hidden)].astype(exact)
                for part in range(tiles.kept)
            )
            d = {name: field[:, units] for name, field in d_state.items()}
            d_h = given["d_hidden"][k, :, units].astype(exact)
            d_h = d_h + _product(operand[now], kernel[:, units])
            d["h"] = d["h"] + d_h if "h" in d else d_h
            before, d_x = tiles.reverse(kept, cell.state(**d))
            d_h_proj = tiles.through(kept, d_x)
            for name, field in d_state.items():
                field[:, units] = getattr(before, name)
            for gate, at in enumerate(lanes):
                out["d_x"][k, :, at] = d_x[gate].astype(dtype)
                operand[after, :, at] = d_h_proj[gate].astype(dtype)
                out["sums_x"][:, at] += _eighths(d_x[gate])
            for place, gate in enumerate(tiles.apart):
                at = _shifted(units, place * hidden)
                out["d_h"][k, :, at] = d_h_proj[gate].astype(dtype)
                out["sums_h"][:, at] += _eighths(d_h_proj[gate])
        if given["reset"] is not None:
            asked = given["reset"][k, :, :1].astype(exact)
            for field in d_state.values():
                field[...] = _zeroed(field[...], asked)
            operand[after] = _zeroed(operand[after], asked)
    if block % 2:
        operand[0] = operand[1]


def _product(x: Array, y: Array) -> Array:
    exact = precision_of(x.dtype)
    return jnp.dot(x, y, precision=exact, preferred_element_type=jnp.float32)


def _tiles(hidden: int) -> list[slice]:
    return [slice(unit, min(unit + UNITS, hidden)) for unit in range(0, hidden, UNITS)]


def _shifted(at: slice, by: int) -> slice:
    return slice(at.start + by, at.stop + by)


def _zeroed(x: Array, asked: Array) -> Array:
    # Chosen, never multiplied by zero: zero times NaN is NaN.
    chosen = jnp.broadcast_to(asked, x.shape) != 0
    return jnp.where(chosen, jnp.zeros_like(x), x)


def _eighths(x: Array) -> Array:
    """Sums over rows that are eight apart, which moves nothing between sublanes."""
    return x.reshape(-1, 8, x.shape[1]).sum(0)
