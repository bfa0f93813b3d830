"""Mesh, shardings and global batches; only this file names a mesh axis.

One axis, `data`: the rows of a batch and of the carry are split over it, parameters and
optimizer state are whole on every device. One device is a mesh of one.

    | array               | shape       | partition          |
    |---------------------|-------------|--------------------|
    | batch               | [b, ...]    | data               |
    | carry               | [l, b, h]   | -, data, -         |
    | params, opt_state   | any         | whole              |
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from charjax.config import Config, InputError
from charjax.text.batching import Batch
from charjax.training.state import TrainState


def make_mesh(devices: list[Any] | None = None) -> Mesh:
    """A mesh of the given devices, by default all there are."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh(
        (len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices
    )


def check_devices(config: Config, mesh: Mesh) -> None:
    """Refuses a batch that the devices do not divide."""
    size, parts, devices = config.data.batch_size, config.optimizer.accumulate, mesh.size
    if size % (devices * parts):
        step = devices * parts
        below, above = size // step * step, -(-size // step) * step
        fitting = f"{below} or {above}" if below else f"{above}"
        cut = f" in {parts} parts (optimizer.accumulate)" if parts > 1 else ""
        raise InputError(
            f"data.batch_size is {size}: {devices} devices cannot share its rows evenly"
            f"{cut}; {fitting} would fit."
        )


def state_sharding(mesh: Mesh, state: TrainState) -> TrainState:
    """The sharding of each leaf of a state (arrays or their shapes)."""
    whole: Any = NamedSharding(mesh, P())
    rows = NamedSharding(mesh, P(None, "data", None))
    return TrainState(
        step=whole,
        params=jax.tree.map(lambda _: whole, state.params),
        opt_state=jax.tree.map(lambda _: whole, state.opt_state),
        carry=jax.tree.map(lambda _: rows, state.carry),
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, P())


def row_sharding(mesh: Mesh, axis: int, ndim: int) -> NamedSharding:
    """Rows on the given axis split over the devices."""
    return NamedSharding(mesh, P(*("data" if k == axis else None for k in range(ndim))))


def local_rows(mesh: Mesh, rows: int) -> tuple[int, int]:
    """First and last-plus-one row of a batch that this process provides."""
    share = rows // jax.process_count()
    first = jax.process_index() * share
    return first, first + share


def put_batch(mesh: Mesh, batch: Batch) -> Batch:
    """This process's rows of a batch, as arrays over all devices."""

    def put(leaf: np.ndarray) -> jax.Array:
        return jax.make_array_from_process_local_data(
            row_sharding(mesh, 0, leaf.ndim), leaf
        )

    return Batch(*map(put, batch))


def abstract(tree: Any, sharding: Any) -> Any:
    """Shapes and dtypes of a tree with the sharding each leaf is to have."""
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        tree,
        sharding,
    )
