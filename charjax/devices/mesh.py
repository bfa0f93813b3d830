"""The mesh of devices: its two axes, and what must divide them.

Over `data` the rows of a batch are split, over `model` the units of a layer and the symbols
of the head. One device is a mesh of one.
"""

import dataclasses
from collections.abc import Collection
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from charjax.config.schema import Config
from charjax.errors import InputError, counted, listed
from charjax.model.recurrence.choose import Recurrence, choose

DATA, MODEL = "data", "model"


def make_mesh(devices: list[Any] | None = None, model: int = 1) -> Mesh:
    """A mesh of the given devices, by default all there are, `model` of them side by side.

    Raises InputError where `model` does not divide the devices of each process.
    """
    devices = jax.devices() if devices is None else devices
    # A process's devices stand together, so that its rows of a batch do too.
    devices = sorted(devices, key=lambda device: (device.process_index, device.id))
    local = len(devices) // len({device.process_index for device in devices})
    if local % model:
        fitting = [k for k in range(1, local + 1) if local % k == 0]
        raise InputError(
            f"parallel.model is {model}: it must divide the {counted(local, 'devices')} "
            f"of each process; {listed(fitting, 'or')} would fit."
        )
    grid = np.array(devices).reshape(-1, model)
    return Mesh(grid, (DATA, MODEL), axis_types=(AxisType.Auto, AxisType.Auto))


def rows_share(mesh: Mesh) -> int:
    """Among how many devices the rows of a batch are split."""
    return mesh.shape[DATA]


def local_rows(mesh: Mesh, rows: int) -> tuple[int, int]:
    """First and last-plus-one row of a batch that this process provides."""
    processes = [device.process_index for device in mesh.devices[:, 0]]
    share, me = rows // len(processes), jax.process_index()
    first = processes.index(me)
    return first * share, (first + processes.count(me)) * share


def read_at_once(config: Config) -> tuple[int, int]:
    """Rows and steps that training reads at once: a batch, or one of its parts.

    >>> read_at_once(Config().replace(**{"optimizer.accumulate": 2}))
    (16, 64)
    """
    rows = config.data.batch_size // config.optimizer.accumulate
    return max(1, rows), config.data.sequence_length


def recurrence_for(
    config: Config,
    mesh: Mesh,
    batch: tuple[int, int] | None = None,
    proven: Collection[str] = (),
) -> Recurrence:
    """The implementation of the recurrence that suits training by a config on these
    devices, and so many rows and steps; None is `read_at_once`. `proven` as `choose` has
    it.

    >>> recurrence_for(Config(), make_mesh()).name
    'scan'
    """
    platform = mesh.devices.flat[0].platform
    batch = batch or read_at_once(config)
    chosen = choose(
        *(platform, config.model, batch, config.train.precision, mesh.shape), proven
    )
    place = dataclasses.replace(chosen.place, mesh=mesh, rows_axis=DATA)
    return dataclasses.replace(chosen, place=place)


def inference_recurrence(
    config: Config, mesh: Mesh, batch: tuple[int, int] | None = None
) -> Recurrence:
    """The implementation for evaluation and sampling, which is never a kernel: so a model
    is read anywhere, whatever it was trained with, and a score does not depend on a check.
    `plain` and `scan`, which run everywhere, are used where they are asked for.

    >>> trained = Config().replace(**{"model.recurrence": "triton"})
    >>> inference_recurrence(trained, make_mesh()).name
    'scan'
    """
    if config.model.recurrence not in ("plain", "scan"):
        config = config.replace(**{"model.recurrence": "auto"})
    return recurrence_for(config, mesh, batch)


def check_devices(config: Config, mesh: Mesh) -> None:
    """Refuses a batch or a layer that the devices do not divide."""
    size, parts = config.data.batch_size, config.optimizer.accumulate
    devices, model = rows_share(mesh), mesh.shape[MODEL]
    if size % (devices * parts):
        cut = f" in {parts} parts (optimizer.accumulate)" if parts > 1 else ""
        fewer = [k for k in range(1, devices) if size % (k * parts) == 0]
        noun = "device" if fewer == [1] else "devices"
        hint = f", or {listed(fewer, 'or')} {noun}" if fewer else ""
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
