"""What an implementation of the recurrence is told of where it runs."""

from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P


@dataclass(frozen=True)
class Place:
    """The platform that the program is compiled for, and how rows lie there; hashable.

    A kernel runs on the rows of each device by itself, so it must be told how they are
    split. Meshes and the names of their axes come from `devices/`.
    """

    platform: str = "cpu"
    """`cpu` (where kernels are interpreted, which is slow), `gpu` or `tpu`."""

    mesh: Mesh | None = None
    """None is one device, or devices that the compiler shares the work among."""

    rows_axis: str | None = None
    """The axis of the mesh over which the rows of a batch are split."""


ANYWHERE = Place()


def over_rows(
    place: Place, function: Any, whole: Any, by_step: Any, by_row: Any
) -> tuple[Any, Any]:
    """Calls a function with arrays that are whole on each device, with arrays `[t, b, ...]`
    and with arrays `[b, ...]`, of which each device has its rows; it returns the latter
    two."""
    if place.mesh is None or place.mesh.size == 1:
        return function(whole, by_step, by_row)
    steps, rows = P(None, place.rows_axis), P(place.rows_axis)
    return jax.shard_map(
        function,
        mesh=place.mesh,
        in_specs=(P(), steps, rows),
        out_specs=(steps, rows),
        check_vma=False,
    )(whole, by_step, by_row)
