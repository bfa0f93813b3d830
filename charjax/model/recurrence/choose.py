"""Which implementation of the recurrence runs where."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

from jax import Array
from jax.typing import DTypeLike

from charjax.config.schema import ModelConfig
from charjax.model.cells import Cell
from charjax.model.recurrence import cpu, plain, scan
from charjax.model.recurrence.layout import GENERAL, Layout

_IMPLEMENTATIONS: dict[str, ModuleType] = {"plain": plain, "scan": scan}


@dataclass(frozen=True)
class Recurrence:
    """An implementation and what it is told of its surroundings; hashable.

    >>> from charjax.model.cells import cell_named
    >>> Recurrence().describe(cell_named("lstm"))
    'scan, it runs everywhere'
    """

    name: Literal["plain", "scan"] = "scan"
    """What runs a cell that brings no `run` of its own."""

    layout: Layout = GENERAL

    reason: str = "it runs everywhere"
    """Why this one, for people."""

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
        run = cell.run or _IMPLEMENTATIONS[self.name].run
        return run(cell, dtype, layer, inputs, state, reset, length, self.layout)


GENERAL_RECURRENCE = Recurrence()
"""The one that runs everywhere, though not everywhere fastest."""


def choose(
    platform: str,
    model: ModelConfig,
    batch: tuple[int, int],
    precision: str,
    mesh: Mapping[str, int],
) -> Recurrence:
    """The implementation that suits a place and sizes; asks nobody for either.

    Args:
      platform: what the program is compiled for: `cpu`, `gpu`, `tpu`.
      model: cell, layers and widths.
      batch: rows and steps of a window.
      precision: type of the matrix operands.
      mesh: how many devices each of its axes has.

    >>> choose("cpu", ModelConfig(), (32, 64), "float32", {"data": 1, "model": 1}).name
    'scan'
    """
    del model, batch, precision
    if platform != "cpu":
        return GENERAL_RECURRENCE
    several = any(count > 1 for count in mesh.values())
    layout = cpu.SEVERAL_DEVICES if several else cpu.ONE_DEVICE
    return Recurrence("scan", layout, "laid out for XLA's CPU compiler")
