"""A layer with its gradient: the kernels, and the products around them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from charjax.model.recurrence.layout import contract
from charjax.model.recurrence.plain import Layer, zeroed
from charjax.model.recurrence.products import are_ids
from charjax.model.recurrence.tpu import calls
from charjax.model.recurrence.tpu.blocks import LANES
from charjax.model.recurrence.tpu.shape import Shape


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def run(
    shape: Shape, layer: Layer, inputs: Array, state: Any, reset: Array | None
) -> tuple[Array, Any]:
    """What `plain.run` does."""
    return _values(layer, _steps(shape, layer, _read(shape, layer, inputs), state, reset))


def _forward(
    shape: Shape, layer: Layer, inputs: Array, state: Any, reset: Array | None
) -> Any:
    x = _read(shape, layer, inputs)
    out = _steps(shape, layer, x, state, reset, save=True)
    inputs = inputs if are_ids(inputs) else x
    return _values(layer, out), (layer, inputs, state.h, reset, out["hidden"], out["kept"])


def _read(shape: Shape, layer: Layer, inputs: Array) -> Array:
    """What the kernel reads: features, or one-hot rows for ids."""
    if not are_ids(inputs):
        return _padded(inputs.astype(shape.dtype), shape.width)
    # Ids beyond the table read its last row.
    ids = jnp.clip(inputs, 0, layer["kernel_x"].shape[0] - 1)
    return jax.nn.one_hot(ids, shape.width, dtype=shape.dtype)


def _values(layer: Layer, out: Any) -> tuple[Array, Any]:
    units = layer["kernel_h"].shape[0]
    hidden = out["hidden"][..., :units].astype(jnp.float32)
    return hidden, jax.tree.map(lambda leaf: leaf[:, :units], out["last"])


def _steps(
    shape: Shape,
    layer: Layer,
    x: Array,
    state: Any,
    reset: Array | None,
    save: bool = False,
) -> Any:
    vectors = [_flat(shape, layer[name][None]) for name in shape.vectors]
    given = {
        "x": x,
        "kernel_x": _matrix(shape, layer["kernel_x"], shape.width),
        "kernel_h": _matrix(shape, layer["kernel_h"], shape.hidden),
        "vectors": jnp.concatenate(vectors),
        "first": _padded(state, shape.hidden),
        "reset": _spread(shape, reset),
    }
    return _one_by_one(lambda given: calls.forward(shape, given, save), given)


def _backward(shape: Shape, residuals: Any, cotangents: Any) -> Any:
    layer, inputs, first, reset, hidden, kept = residuals
    d_hidden, d_last = cotangents
    d_hidden = d_hidden.at[-1].add(d_last.h)
    kernel_x, kernel_h = layer["kernel_x"], layer["kernel_h"]
    given = {
        "d_hidden": _padded(d_hidden.astype(shape.dtype), shape.hidden),
        "kernel": _matrix(shape, kernel_h, shape.hidden).T,
        "last": {
            name: _padded(getattr(d_last, name), shape.hidden) for name in shape.beside_h
        },
        "reset": _spread(shape, reset),
        "kept": kept,
    }
    out = _one_by_one(lambda given: calls.backward(shape, given), given)
    d_x = out["d_x"]
    before = jnp.concatenate(
        [_padded(first, shape.hidden)[None].astype(shape.dtype), hidden[:-1]]
    )
    before = zeroed(before, reset)
    x = _read(shape, layer, inputs)
    d_layer = {
        "kernel_x": _gates(shape, _weights(x, d_x), kernel_x.shape),
        "kernel_h": _gates(shape, _hidden_weights(shape, before, out), kernel_h.shape),
    }
    for name, where in shape.slopes.added_to.items():
        sums = out["sums_x"] if where == "x" else _of_h(shape, out["sums_x"], out["sums_h"])
        d_layer[name] = _gates(shape, sums.sum(0)[None], (1, *layer[name].shape))[0]
    d_inputs = None
    if not are_ids(inputs):
        d_inputs = contract(
            d_x, _matrix(shape, kernel_x, shape.width), (2,), (1,), shape.dtype
        )
        d_inputs = d_inputs[..., : kernel_x.shape[0]]
    return d_layer, d_inputs, _first(shape, layer, out, reset), None


def _first(shape: Shape, layer: Layer, out: Any, reset: Array | None) -> Any:
    """The gradient of the state before the first step."""
    d_x, d_h = jax.tree.map(lambda leaf: leaf[0], (out["d_x"], out["d_h"]))
    d_h_proj = _of_h(shape, d_x, d_h)
    kernel = _matrix(shape, layer["kernel_h"], shape.hidden)
    through = contract(d_h_proj, kernel, (1,), (1,), shape.dtype)
    if reset is not None:
        through = zeroed(through, reset[0])
    d_state = dict(out["first"], h=out["first"].get("h", 0.0) + through)
    units = layer["kernel_h"].shape[0]
    return shape.cell.state(**{name: leaf[:, :units] for name, leaf in d_state.items()})


def _weights(x: Array, d: Array) -> Array:
    """The gradient of a matrix `[e, n]`, summed over steps and rows."""
    return contract(x, d, (0, 1), (0, 1), x.dtype)


def _hidden_weights(shape: Shape, before: Array, out: Any) -> Array:
    if not shape.tiles.apart:
        return _weights(before, out["d_x"])
    # Gate by gate, or the gradients of all steps would be copied side by side.
    gates = _split_by_gate(shape, out["d_x"], out["d_h"])
    return jnp.concatenate([_weights(before, d) for d in gates], 1)


def _of_h(shape: Shape, of_x: Array, apart: Array | None) -> Array:
    """Gradients of `h_proj`, from those of `x` and those that differ."""
    if apart is None:
        return of_x
    return jnp.concatenate(_split_by_gate(shape, of_x, apart), -1)


def _split_by_gate(shape: Shape, of_x: Array, apart: Array) -> list[Array]:
    def gate(array: Array, place: int) -> Array:
        return lax.slice_in_dim(array, place * size, (place + 1) * size, axis=-1)

    size, differ = shape.hidden, shape.tiles.apart
    return [
        gate(apart, differ.index(k)) if k in differ else gate(of_x, k)
        for k in range(len(shape.cell.gates))
    ]


def _one_by_one(kernel: Callable[[Any], Any], given: Any) -> Any:
    """A kernel that `vmap` runs for one member after the other."""
    return jax.custom_batching.sequential_vmap(kernel)(given)


def _padded(tree: Any, width: int) -> Any:
    """Leaves `[..., n]` with zeros up to a width."""

    def pad(leaf: Array) -> Array:
        missing = width - leaf.shape[-1]
        widths = [(0, 0)] * (leaf.ndim - 1) + [(0, missing)]
        return jnp.pad(leaf, widths) if missing else leaf

    return jax.tree.map(pad, tree)


def _flat(shape: Shape, x: Array) -> Array:
    """`[e, g, h]` as `[e, g * h]`, the units of each gate rounded up."""
    return _padded(x, shape.hidden).reshape(len(x), -1)


def _matrix(shape: Shape, kernel: Array, rows: int) -> Array:
    """A kernel `[e, g, h]` as an operand `[e, g * h]`, inputs and units rounded up."""
    missing = rows - len(kernel)
    flat = _flat(shape, kernel.astype(shape.dtype))
    return jnp.pad(flat, ((0, missing), (0, 0))) if missing else flat


def _gates(shape: Shape, flat: Array, like: tuple[int, ...]) -> Array:
    """The way back: `[e, g * h]` as `[e, g, h]`."""
    return flat.reshape(len(flat), -1, shape.hidden)[: like[0], :, : like[2]]


def _spread(shape: Shape, reset: Array | None) -> Array | None:
    """Where rows begin again, a number on each lane."""
    if reset is None:
        return None
    spread = jnp.broadcast_to(reset[..., None], (*reset.shape, LANES))
    return spread.astype(shape.dtype)


run.defvjp(_forward, _backward)
