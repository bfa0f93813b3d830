"""What a kernel reads and writes, and the fast memory (VMEM) that this takes: one
description for both, so that memory is counted and not guessed."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec as P

LANES = 128
"""Numbers side by side in a register."""

UNITS = 2 * LANES
"""Units of a tile, the width of a v6e's matrix unit; on a v5e 128 and 512 are slower."""

ROWS = 16
"""What rows are rounded up to: a register's bfloat16 rows."""


@dataclass(frozen=True, eq=False)
class Block:
    """An array `[t, b, n]` of which a kernel sees some steps at a time, or one that it has
    as a whole."""

    shape: tuple[int, ...]
    dtype: Any
    streamed: bool = False
    written: bool = False
    rows: int | None = None
    """The axis of the rows of a batch, which devices share."""

    own: bool = False
    """Whether each device has one of its own, the next below the other."""

    def array(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.shape, self.dtype)

    def split(self, over: str | None) -> P:
        """Where the array lies: its rows are split over an axis of the mesh."""
        split = 0 if self.own else self.rows
        return P(*(over if axis == split else None for axis in range(len(self.shape))))

    def padded(self, array: Array) -> Array:
        """An array with zeros below its rows, as many as the block has."""
        if self.rows is None:
            return array
        widths = [
            (0, size - given) for size, given in zip(self.shape, array.shape, strict=True)
        ]
        return jnp.pad(array, widths) if array.shape != self.shape else array

    def cut(self, array: Array, rows: int) -> Array:
        """The array without those zeros."""
        if self.rows is None or array.shape[self.rows] == rows:
            return array
        return lax.slice_in_dim(array, 0, rows, axis=self.rows)

    def spec(self, block: int, step: Callable[[Any], Any]) -> pl.BlockSpec:
        """`step` turns a place of the grid into that of the block of steps."""
        if self.streamed:
            shape = (block, *self.shape[1:])
            return pl.BlockSpec(shape, lambda t: (step(t), 0, 0))
        zero = (0,) * len(self.shape)
        mode = None if self.written else pl.Buffered(1)
        return pl.BlockSpec(self.shape, lambda t: zero, pipeline_mode=mode)

    def vmem(self, block: int) -> int:
        """Bytes, rounded up to registers; twice where one is moved while one is used."""
        *many, rows, lanes = (block, *self.shape[1:]) if self.streamed else self.shape
        size = jnp.dtype(self.dtype).itemsize
        packed = 32 // size
        rows = -(-rows // packed) * packed
        lanes = -(-lanes // LANES) * LANES
        copies = 2 if self.streamed or self.written else 1
        return math.prod(many) * rows * lanes * size * copies


def vmem(blocks: Any, block: int) -> int:
    """Bytes that a kernel's arrays take."""
    leaves = jax.tree.leaves(blocks, is_leaf=lambda leaf: isinstance(leaf, Block))
    return sum(leaf.vmem(block) for leaf in leaves)
