"""The sizes of a layer as its kernels have them, and how much they do at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike

from charjax.model.cells import Cell, Slopes, Tiles
from charjax.model.recurrence.place import Place
from charjax.model.recurrence.tpu.blocks import LANES, ROWS, UNITS, Block, vmem

VMEM = 28 * 2**20
"""Bytes that a kernel may take. A v5e and a v6e have 128 MiB, but XLA keeps arrays of the
rest of the program there too: with 100 a whole training step does not compile."""

VALUES = 16
"""Arrays of a tile's rows and units that wait beside the others for their use: measured, as
is that products of float32 are split into parts in memory first."""

UNROLLED = 8
"""Tiles of units in one block of steps: more take longer to compile and gain nothing."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a layer on one device, units and width rounded up to `LANES`."""

    cell: Cell
    dtype: Any
    steps: int
    rows: int
    width: int
    hidden: int
    vectors: tuple[str, ...]
    reset: bool
    place: Place

    @classmethod
    def of(
        cls,
        cell: Cell,
        dtype: DTypeLike,
        sizes: Mapping[str, tuple[int, ...]],
        batch: tuple[int, int],
        place: Place,
        reset: bool,
    ) -> "Shape":
        """From the shapes of a layer's parameters, and steps and rows on one device."""
        width, hidden = _rounded(sizes["kernel_x"][0]), _rounded(sizes["kernel_h"][0])
        names = tuple(name for name in sizes if name not in ("kernel_x", "kernel_h"))
        return cls(cell, jnp.dtype(dtype), *batch, width, hidden, names, reset, place)

    @property
    def slopes(self) -> Slopes:
        assert self.cell.slopes is not None
        return self.cell.slopes

    @property
    def tiles(self) -> Tiles:
        assert self.slopes.tiles is not None
        return self.slopes.tiles

    @property
    def beside_h(self) -> tuple[str, ...]:
        """The parts of the state but for the hidden one."""
        return tuple(name for name in self.cell.state._fields if name != "h")

    @property
    def block(self) -> int | None:
        """How many time steps a kernel does at once; None where not one fits."""
        for block in (4, 2, 1):
            unrolled = block * self.hidden // LANES
            if self.steps % block or (block > 1 and unrolled > UNROLLED):
                continue
            kernels = self.forward(True), self.backward()
            if max(self.memory(kernel, block) for kernel in kernels) <= VMEM:
                return block
        return None

    def memory(self, kernel: tuple[Any, Any, Block], block: int) -> int:
        """Bytes of fast memory that a kernel takes."""
        units, gates = min(self.hidden, UNITS), len(self.cell.gates)
        beside = VALUES * self._rows * units * 4
        if self.dtype == jnp.float32:
            beside += gates * (self.width + self.hidden) * units * 4
            beside += gates * self.hidden * self._rows * 4
        return vmem(kernel, block) + beside

    def forward(self, save: bool) -> tuple[Any, Any, Block]:
        """What the forward kernel reads, writes and remembers."""
        gated = len(self.cell.gates) * self.hidden
        given = {
            "x": self._steps(self.width),
            "kernel_x": Block((self.width, gated), self.dtype),
            "kernel_h": Block((self.hidden, gated), self.dtype),
            "vectors": Block((len(self.vectors), gated), jnp.float32),
            "first": self._state(False),
            "reset": self._steps(LANES) if self.reset else None,
        }
        out = {"hidden": self._steps(self.hidden), "last": self._state(True)}
        if save:
            out["kept"] = self._steps(self.tiles.kept * self.hidden)
        return given, out, Block((2, self._rows, self.hidden), self.dtype)

    def backward(self) -> tuple[Any, Any, Block]:
        """The same of the backward kernel."""
        gated = len(self.cell.gates) * self.hidden
        apart = len(self.tiles.apart) * self.hidden
        given = {
            "d_hidden": self._steps(self.hidden),
            "kept": self._steps(self.tiles.kept * self.hidden),
            "kernel": Block((gated, self.hidden), self.dtype),
            "last": {name: self._part(False) for name in self.beside_h},
            "reset": self._steps(LANES) if self.reset else None,
        }
        carried = (*self.beside_h, "h") if self.tiles.h_stays else self.beside_h
        out = {
            "d_x": self._steps(gated),
            "d_h": self._steps(apart) if apart else None,
            "first": {name: self._part(True) for name in carried},
            "sums_x": Block((8, gated), jnp.float32, written=True, own=True),
            "sums_h": Block((8, apart), jnp.float32, written=True, own=True)
            if apart
            else None,
        }
        return given, out, Block((2, self._rows, gated), self.dtype)

    @property
    def _rows(self) -> int:
        return -(-self.rows // ROWS) * ROWS

    def _steps(self, width: int) -> Block:
        shape = (self.steps, self._rows, width)
        return Block(shape, self.dtype, streamed=True, rows=1)

    def _part(self, written: bool) -> Block:
        shape = (self._rows, self.hidden)
        return Block(shape, jnp.float32, written=written, rows=0)

    def _state(self, written: bool) -> Any:
        return self.cell.state(*(self._part(written) for _ in self.cell.state._fields))


def _rounded(size: int) -> int:
    return -(-size // LANES) * LANES
