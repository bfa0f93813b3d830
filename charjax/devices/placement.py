"""Mesh, shardings and global batches; only this file names a mesh axis.

Two axes. Over `data` the rows of a batch are split, over `model` the units of a layer and
the symbols of the head. One device is a mesh of one.

    | array             | shape       | partition            | with `fsdp`, also `data` on |
    |-------------------|-------------|----------------------|-----------------------------|
    | batch             | [b, ...]    | data                 |                             |
    | carry             | [l, b, h]   | -, data, model       |                             |
    | kernel_x          | [e, g, h]   | -, -, model          | e                           |
    | kernel_h          | [h, g, h]   | -, -, model          | the first h                 |
    | bias, bias_h      | [g, h]      | -, model             |                             |
    | embedding/table   | [v, e]      | -, -                 | e                           |
    | head/kernel       | [h, v]      | -, model if it fits  | h                           |
    | head/bias         | [v]         | model if it fits     |                             |

The layers after the first have one axis more in front, which is not split. What the
optimizer keeps of a parameter lies where the parameter does; all else is whole on every
device. Splitting `h` rather than `g * h` leaves whole units on each device: one gather of
the hidden state in each time step, and no shuffling of gates.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from charjax.config.schema import Config
from charjax.errors import InputError
from charjax.model.network import Params
from charjax.text.batching import Batch

# For each parameter by its name, the axis of its last dimensions that `model` splits, and
# the one that `fsdp` splits over `data`; None where it splits none.
_SPLIT: dict[str, tuple[int | None, int | None]] = {
    "kernel_x": (-1, -3),
    "kernel_h": (-1, -3),
    "bias": (-1, None),
    "bias_h": (-1, None),
    "table": (None, -1),
    "kernel": (-1, -2),
}


def make_mesh(devices: list[Any] | None = None, model: int = 1) -> Mesh:
    """A mesh of the given devices, by default all there are, `model` of them side by side.

    Raises InputError where `model` does not divide the devices of each process.
    """
    devices = jax.devices() if devices is None else devices
    # A process's devices stand together, so that its rows of a batch do too.
    devices = sorted(devices, key=lambda device: (device.process_index, device.id))
    local = len(devices) // len({device.process_index for device in devices})
    if local % model:
        fitting = [str(k) for k in range(1, local + 1) if local % k == 0]
        raise InputError(
            f"parallel.model is {model}: each process has {local} devices, which it must "
            f"divide; {_either(fitting)} would fit."
        )
    grid = np.array(devices).reshape(-1, model)
    return Mesh(grid, ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto))


def rows_share(mesh: Mesh) -> int:
    """Among how many devices the rows of a batch are split."""
    return mesh.shape["data"]


def check_devices(config: Config, mesh: Mesh) -> None:
    """Refuses a batch or a layer that the devices do not divide."""
    size, parts = config.data.batch_size, config.optimizer.accumulate
    devices, model = rows_share(mesh), mesh.shape["model"]
    if size % (devices * parts):
        cut = f" in {parts} parts (optimizer.accumulate)" if parts > 1 else ""
        fewer = [str(k) for k in range(1, devices) if size % (k * parts) == 0]
        hint = f", or {_either(fewer)} devices" if fewer else ""
        raise InputError(
            f"data.batch_size is {size}: {devices} devices cannot share its rows evenly"
            f"{cut}; {_neighbours(size, devices * parts)} would fit{hint}."
        )
    hidden = config.model.hidden_size
    splits = [(model, "parallel.model")]
    if config.parallel.fsdp:
        splits.append((devices, "parallel.fsdp"))
    for share, field in splits:
        if hidden % share:
            raise InputError(
                f"model.hidden_size is {hidden}: {share} devices ({field}) cannot share "
                f"its units evenly; {_neighbours(hidden, share)} would fit."
            )


def _neighbours(size: int, step: int) -> str:
    below, above = size // step * step, -(-size // step) * step
    return f"{below} or {above}" if below else f"{above}"


def _either(fitting: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(fitting[:-1]), fitting[-1]]))


def params_sharding(mesh: Mesh, tree: Any, fsdp: bool = False) -> Any:
    """The sharding of each leaf of parameters, or of a tree that holds leaves like them
    under the same names (arrays or their shapes)."""

    def place(path: Any, leaf: Any) -> NamedSharding:
        name, axes = getattr(path[-1], "key", None) if path else None, [None] * leaf.ndim
        in_head = len(path) > 1 and getattr(path[-2], "key", None) == "head"
        by_model, by_data = _SPLIT.get(str(name), (None, None))
        if in_head and name == "bias":
            by_model = -1
        splits = [("model", by_model), ("data", by_data if fsdp else None)]
        for axis_name, axis in splits:
            count = mesh.shape[axis_name]
            if axis is None or leaf.ndim < -axis or leaf.shape[axis] % count:
                continue
            axes[axis] = axis_name
        return NamedSharding(mesh, P(*axes))

    return jax.tree_util.tree_map_with_path(place, tree)


def state_sharding(mesh: Mesh, state: Any, fsdp: bool = False) -> Any:
    """The sharding of each leaf of a state (arrays or their shapes)."""
    return dataclasses.replace(
        state,
        step=replicated(mesh),
        params=params_sharding(mesh, state.params, fsdp),
        opt_state=params_sharding(mesh, state.opt_state, fsdp),
        carry=jax.tree.map(lambda _: carry_sharding(mesh), state.carry),
    )


def item_sharding(mesh: Mesh, item: str, tree: Any, fsdp: bool) -> Any:
    """The sharding of each leaf of `params`, `opt_state` or `carry` by its name alone."""
    if item == "carry":
        return jax.tree.map(lambda _: carry_sharding(mesh), tree)
    return params_sharding(mesh, tree, fsdp)


def placed(mesh: Mesh, params: Params) -> Params:
    """Parameters as evaluation uses them."""
    sharding = params_sharding(mesh, params)
    if jax.process_count() == 1:
        return jax.device_put(params, sharding)
    # Between processes only a compiled program moves arrays.
    return jax.jit(_same, out_shardings=sharding)(params)


def carry_sharding(mesh: Mesh) -> NamedSharding:
    """Of each leaf of a carry `[l, b, h]`."""
    return NamedSharding(mesh, P(None, "data", "model"))


def spread(place: NamedSharding, ndim: int) -> str:
    """What splits each dimension of an array, and in how many: `-, data 4, model 2`."""
    axes = [*place.spec, *[None] * (ndim - len(place.spec))]
    counts = [1 if axis is None else place.mesh.shape[axis] for axis in axes]
    if math.prod(counts) == 1:
        return "whole"
    return ", ".join(
        "-" if count == 1 else f"{axis} {count}"
        for axis, count in zip(axes, counts, strict=True)
    )


def bytes_on_device(tree: Any, sharding: Any) -> int:
    """Bytes that a tree of arrays or shapes takes on each device."""
    sizes = jax.tree.map(
        lambda leaf, place: math.prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize,
        tree,
        sharding,
    )
    return sum(jax.tree.leaves(sizes))


def gathered(mesh: Mesh, fsdp: bool) -> Callable[[Params], Params]:
    """What a step does with parameters before it uses them: with `fsdp` it brings together
    what is split over `data`, once, outside every loop."""

    def gather(params: Params) -> Params:
        return jax.lax.with_sharding_constraint(params, params_sharding(mesh, params))

    return gather if fsdp and rows_share(mesh) > 1 else lambda params: params


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, P())


def local_rows(mesh: Mesh, rows: int) -> tuple[int, int]:
    """First and last-plus-one row of a batch that this process provides."""
    processes = [device.process_index for device in mesh.devices[:, 0]]
    share, me = rows // len(processes), jax.process_index()
    first = processes.index(me)
    return first * share, (first + processes.count(me)) * share


def put_batch(mesh: Mesh, batch: Batch) -> Batch:
    """This process's rows of a batch, as arrays over all devices."""

    place = NamedSharding(mesh, P("data"))
    return Batch(*(jax.make_array_from_process_local_data(place, leaf) for leaf in batch))


def put(tree: Any, sharding: Any) -> Any:
    """Arrays that every process has in full, placed."""

    def place(leaf: Any, where: NamedSharding) -> jax.Array:
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, where, lambda part: array[part])

    return jax.tree.map(place, tree, sharding)


def on_one_device(tree: Any) -> Any:
    """Placed arrays in full, on a device of this process; all processes must ask."""
    whole = jax.tree.map(lambda leaf: NamedSharding(leaf.sharding.mesh, P()), tree)
    values = jax.device_get(jax.jit(_same, out_shardings=whole)(tree))
    return jax.device_put(values, jax.local_devices()[0])


def _same(tree: Any) -> Any:
    # With a name of its own, so that it is compiled once.
    return tree


def abstract(tree: Any, sharding: Any) -> Any:
    """Shapes and dtypes of a tree with the sharding each leaf is to have."""
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        tree,
        sharding,
    )
