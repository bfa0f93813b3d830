"""What an implementation of the recurrence is told of where it runs."""

from dataclasses import dataclass

from jax.sharding import Mesh


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
