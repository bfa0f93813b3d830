"""The kernels as functions of arrays, on one device and on several."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from charjax.model.recurrence.tpu import kernels
from charjax.model.recurrence.tpu.blocks import Block
from charjax.model.recurrence.tpu.shape import Shape


def forward(shape: Shape, given: Any, save: bool) -> Any:
    """Runs the forward kernel; arrays have the rows of all devices."""
    kernel = partial(
        kernels.forward, cell=shape.cell, tiles=shape.tiles, names=shape.vectors
    )
    return _call("forward", shape, kernel, shape.forward(save), given, lambda t, count: t)


def backward(shape: Shape, given: Any) -> Any:
    """The same of the backward kernel."""
    kernel = partial(kernels.backward, cell=shape.cell, tiles=shape.tiles)
    return _call(
        "backward", shape, kernel, shape.backward(), given, lambda t, count: count - 1 - t
    )


def _call(
    name: str,
    shape: Shape,
    kernel: Callable[..., None],
    blocks: tuple[Any, Any, Block],
    given: Any,
    step: Callable[[Any, int], Any],
) -> Any:
    (reads, writes, remembers), block = blocks, shape.block
    assert block is not None
    count = shape.steps // block

    def specs(tree: Any) -> Any:
        return _each(lambda leaf: leaf.spec(block, lambda t: step(t, count)), tree)

    def local(given: Any) -> Any:
        given = _each(lambda leaf, array: leaf.padded(array), reads, given)
        out = pl.pallas_call(
            lambda given, *rest: kernel(given, _restored(writes, rest[:-1]), rest[-1]),
            grid=(count,),
            in_specs=[specs(reads)],
            out_specs=jax.tree.leaves(specs(writes)),
            out_shape=jax.tree.leaves(_each(Block.array, writes)),
            scratch_shapes=[pltpu.VMEM(remembers.shape, remembers.dtype)],
            compiler_params=pltpu.CompilerParams(
                dimension_semantics=("arbitrary",),
                vmem_limit_bytes=shape.memory(blocks, block),
            ),
            interpret=shape.place.platform != "tpu",
            name=f"recurrence_{name}",
        )(given)
        out = _restored(writes, out)
        return _each(lambda leaf, array: leaf.cut(array, shape.rows), writes, out)

    if shape.place.mesh is None:
        return local(given)
    over = shape.place.rows_axis
    return jax.shard_map(
        local,
        mesh=shape.place.mesh,
        in_specs=(_each(lambda leaf: leaf.split(over), reads),),
        out_specs=_each(lambda leaf: leaf.split(over), writes),
        check_vma=False,
    )(given)


def _each(function: Callable[..., Any], blocks: Any, *others: Any) -> Any:
    return jax.tree.map(
        function, blocks, *others, is_leaf=lambda leaf: isinstance(leaf, Block)
    )


def _restored(blocks: Any, leaves: Any) -> Any:
    return jax.tree.unflatten(jax.tree.structure(blocks), leaves)
