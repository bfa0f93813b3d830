"""Which implementation of the recurrence runs where."""

import importlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from jax import Array
from jax.typing import DTypeLike

from charjax.config.model import ModelConfig
from charjax.errors import InputError
from charjax.model.cells import Cell
from charjax.model.recurrence import cpu
from charjax.model.recurrence.layout import GENERAL, Layout
from charjax.model.recurrence.place import ANYWHERE, Place

_PREFERRED = {"cpu": ("scan",), "gpu": ("triton", "gpu", "scan"), "tpu": ("tpu", "scan")}
"""For each platform, the best first."""

NEED_PROOF = ("triton", "tpu")
"""What `auto` takes only where a check on the devices at hand has proven it."""


@dataclass(frozen=True)
class Recurrence:
    """An implementation and what it is told of its surroundings; hashable.

    >>> from charjax.model.cells import cell_named
    >>> Recurrence().describe(cell_named("lstm"))
    'scan, it runs everywhere'
    """

    name: str = "scan"
    """What runs a cell that brings no `run` of its own: a file beside this one."""

    layout: Layout = GENERAL

    reason: str = "it runs everywhere"
    """Why this one, for people."""

    place: Place = ANYWHERE

    def takes_ids(self, cell: Cell) -> bool:
        """Whether ids are read as rows of `kernel_x`, or the network must make features."""
        return cell.run is None or cell.takes_ids

    def describe(self, cell: Cell) -> str:
        """What runs for a cell and why, for people."""
        return "the cell's own" if cell.run else f"{self.name}, {self.reason}"

    def run(
        self,
        cell: Cell,
        dtype: DTypeLike,
        layer: Mapping[str, Array],
        inputs: Array,
        state: Any,
        reset: Array | None = None,
        length: Array | None = None,
    ) -> tuple[Array, Any]:
        """One layer over time, as `plain.run` describes it."""
        run = cell.run or _implementation(self.name).run
        return run(
            *(cell, dtype, layer, inputs, state, reset, length), self.layout, self.place
        )


GENERAL_RECURRENCE = Recurrence()
"""The one that runs everywhere, though not everywhere fastest."""


def choose(
    platform: str,
    model: ModelConfig,
    batch: tuple[int, int],
    precision: str,
    mesh: Mapping[str, int],
    proven: Collection[str] = (),
) -> Recurrence:
    """The implementation that suits a place and sizes; asks nobody for either.

    Args:
      platform: what the program is compiled for: `cpu`, `gpu`, `tpu`.
      model: cell, layers and widths, and what is asked for.
      batch: rows and steps of a window.
      precision: type of the matrix operands.
      mesh: how many devices each of its axes has.
      proven: the kernels that have shown on such a device that they are right and fast.

    Raises:
      InputError: what `model.recurrence` asks for cannot do this.

    >>> choose("cpu", ModelConfig(), (32, 64), "float32", {"data": 1, "model": 1}).name
    'scan'
    """
    if model.recurrence != "auto":
        obstacle = why_not(model.recurrence, platform, model, batch, precision, mesh)
        if obstacle is not None:
            raise InputError(
                f"model.recurrence is {model.recurrence!r}: {obstacle}. Leave it 'auto', "
                "or give 'scan', which runs everywhere."
            )
        unchecked = ", not checked" if model.recurrence in NEED_PROOF else ""
        return _described(model.recurrence, platform, mesh, f"asked for{unchecked}")
    for name in _PREFERRED[platform]:
        if name in NEED_PROOF and name not in proven:
            continue
        if why_not(name, platform, model, batch, precision, mesh) is None:
            return _described(name, platform, mesh, f"the fastest for a {platform.upper()}")
    raise AssertionError("scan runs everywhere")


def unproven(
    platform: str,
    model: ModelConfig,
    batch: tuple[int, int],
    precision: str,
    mesh: Mapping[str, int],
) -> list[str]:
    """The kernels that `auto` would take if they were proven, best first; the arguments are
    those of `choose`.

    >>> unproven("cpu", ModelConfig(), (32, 64), "float32", {"data": 1, "model": 1})
    []
    """
    if model.recurrence != "auto":
        return []
    return [
        name
        for name in _PREFERRED[platform]
        if name in NEED_PROOF
        and why_not(name, platform, model, batch, precision, mesh) is None
    ]


def why_not(
    name: str,
    platform: str,
    model: ModelConfig,
    batch: tuple[int, int],
    precision: str,
    mesh: Mapping[str, int],
) -> str | None:
    """Why an implementation cannot run a model there, for people; None where it can."""
    ask = getattr(_implementation(name), "why_not", None)
    return None if ask is None else ask(platform, model, batch, precision, mesh)


def _described(
    name: str, platform: str, mesh: Mapping[str, int], reason: str
) -> Recurrence:
    if name != "scan" or platform != "cpu":
        return Recurrence(name, GENERAL, reason, Place(platform))
    several = any(count > 1 for count in mesh.values())
    layout = cpu.SEVERAL_DEVICES if several else cpu.ONE_DEVICE
    if reason != "asked for":
        reason = "laid out for XLA's CPU compiler"
    return Recurrence(name, layout, reason, Place(platform))


def _implementation(name: str) -> ModuleType:
    # Only when asked for: those of a GPU and a TPU bring their kernels' compilers along.
    return importlib.import_module(f"charjax.model.recurrence.{name}")
