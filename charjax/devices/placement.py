"""What lies where on a mesh; only this file names a mesh axis of an array.

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

That follows from `units` and `inputs` in the table of parameters. The layers after the
first have one axis more in front, which is not split. What the optimizer keeps of a
parameter lies where the parameter does; all else is whole on every device. Splitting `h`
rather than `g * h` leaves whole units on each device: one gather of the hidden state in
each time step, and no shuffling of gates.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from charjax.config.schema import Config
from charjax.devices.mesh import DATA, MODEL, rows_share
from charjax.model.parameter import Parameter
from charjax.model.parameters import Params, table, with_parameters
from charjax.text.batching import Batch


def params_sharding(mesh: Mesh, config: Config, tree: Any, fsdp: bool = False) -> Any:
    """The sharding of each leaf of parameters, or of a tree that holds leaves like them
    under the same names (arrays or their shapes)."""

    def place(parameter: Parameter | None, leaf: Any) -> NamedSharding:
        axes: list[str | None] = [None] * leaf.ndim
        if parameter is None:
            return NamedSharding(mesh, P(*axes))
        splits = [(MODEL, parameter.units), (DATA, parameter.inputs if fsdp else None)]
        for axis_name, axis in splits:
            count = mesh.shape[axis_name]
            if axis is None or leaf.ndim < -axis or leaf.shape[axis] % count:
                continue
            axes[axis] = axis_name
        return NamedSharding(mesh, P(*axes))

    return with_parameters(place, table(config.model, 1), tree)


def state_sharding(mesh: Mesh, config: Config, state: Any) -> Any:
    """The sharding of each leaf of a state (arrays or their shapes): a dataclass, or a
    dictionary of some of its fields."""
    if not isinstance(state, dict):
        return dataclasses.replace(state, **state_sharding(mesh, config, vars(state)))
    return {
        name: jax.tree.map(lambda _: carry_sharding(mesh), tree)
        if name == "carry"
        else params_sharding(mesh, config, tree, config.parallel.fsdp)
        for name, tree in state.items()
    }


def placed(mesh: Mesh, config: Config, params: Params) -> Params:
    """Parameters as evaluation uses them."""
    sharding = params_sharding(mesh, config, params)
    if jax.process_count() == 1:
        return jax.device_put(params, sharding)
    # Between processes only a compiled program moves arrays.
    return jax.jit(_same, out_shardings=sharding)(params)


def carry_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of each leaf of a carry `[l, b, h]`."""
    return NamedSharding(mesh, P(None, DATA, MODEL))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of each leaf of a batch `[b, ...]`."""
    return NamedSharding(mesh, P(DATA))


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


def gathered(mesh: Mesh, config: Config) -> Callable[[Params], Params]:
    """What a step does with parameters before it uses them: with `fsdp` it brings together
    what is split over `data`, once, outside every loop."""

    def gather(params: Params) -> Params:
        sharding = params_sharding(mesh, config, params)
        return jax.lax.with_sharding_constraint(params, sharding)

    return gather if config.parallel.fsdp and rows_share(mesh) > 1 else _same


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what is whole on every device."""
    return NamedSharding(mesh, P())


def put_batch(mesh: Mesh, batch: Batch) -> Batch:
    """This process's rows of a batch, as arrays over all devices."""
    place = batch_sharding(mesh)
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
