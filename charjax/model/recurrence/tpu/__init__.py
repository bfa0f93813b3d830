"""For TPUs: all time steps of a layer in one kernel forward and one backward.

Weights and states stay in fast memory over all steps. The input product is inside, for ids
with one-hot rows. The products of the weights' gradients run over all steps and stay
outside, where XLA is as fast as the hardware. Rows that several devices share stay where
they are: the kernels run on each device by themselves, and the rest is the compiler's.

Matrix operands are rounded to `dtype`, as elsewhere; so are hidden states, their gradients,
what the forward kernel keeps, and the rows that ids read. In float32 nothing is rounded:
products are exact.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from charjax.config.model import ModelConfig
from charjax.model.cells import Cell
from charjax.model.recurrence import scan
from charjax.model.recurrence.layout import GENERAL, Layout
from charjax.model.recurrence.place import ANYWHERE, Place
from charjax.model.recurrence.plain import Layer
from charjax.model.recurrence.products import ONE_HOT_LIMIT, are_ids
from charjax.model.recurrence.tpu import layer as whole
from charjax.model.recurrence.tpu.shape import Shape
from charjax.model.variants import cell_of


def run(
    cell: Cell,
    dtype: DTypeLike,
    layer: Layer,
    inputs: Array,
    state: Any,
    reset: Array | None = None,
    length: Array | None = None,
    layout: Layout = GENERAL,
    place: Place = ANYWHERE,
) -> tuple[Array, Any]:
    """What `plain.run` does; `scan` does what the kernels cannot, or are not made for."""
    steps, rows = inputs.shape[:2]
    split = {} if place.mesh is None else dict(place.mesh.shape)
    share = split.pop(place.rows_axis, 1)
    sizes = {name: parameter.shape for name, parameter in layer.items()}
    shape = Shape.of(cell, dtype, sizes, (steps, rows // share), place, reset is not None)
    obstacle = _split(rows, share, split) or _obstacle(shape, are_ids(inputs))
    if obstacle or length is not None or steps < 2:
        return scan.run(cell, dtype, layer, inputs, state, reset, length, layout, place)
    return whole.run(shape, layer, inputs, state, reset)


def why_not(
    platform: str,
    model: ModelConfig,
    batch: tuple[int, int],
    precision: str,
    mesh: Mapping[str, int],
) -> str | None:
    """Why the kernels cannot run a model there, for people; None where they can. The first
    axis of the mesh is that of the rows."""
    if platform != "tpu":
        return f"its kernels are for a TPU, not for a {platform.upper()}"
    (rows, steps), cell = batch, cell_of(model)
    if steps < 2:
        return "its kernels are for two time steps and more"
    rows_axis, *_ = mesh
    share, split = mesh[rows_axis], {name: mesh[name] for name in mesh if name != rows_axis}
    obstacle = _split(rows, share, split)
    # How many symbols there are is not known here; the layer itself asks again.
    widths = {
        model.embedding_size or 1,
        *([model.hidden_size] if model.num_layers > 1 else []),
    }
    for width in widths:
        parameters = cell.parameters(model, width, False)
        sizes = {name: parameter.shape for name, parameter in parameters.items()}
        batch = (steps, max(rows // share, 1))
        shape = Shape.of(cell, precision, sizes, batch, Place(platform), True)
        obstacle = obstacle or _obstacle(shape, False)
    return obstacle


def _split(rows: int, share: int, others: Mapping[str, int]) -> str | None:
    if math.prod(others.values()) > 1:
        return "its kernels need all units of a layer on each device (parallel.model)"
    if rows % share:
        return f"its kernels need as many rows on each device: {share} cannot share {rows}"
    return None


def _obstacle(shape: Shape, one_hot: bool) -> str | None:
    if shape.cell.slopes is None or shape.cell.slopes.tiles is None:
        return "the cell has no functions for kernels"
    if shape.dtype not in (jnp.float32, jnp.bfloat16):
        return "its kernels compute in float32 or bfloat16"
    if one_hot and shape.width > ONE_HOT_LIMIT:
        return f"its one-hot products are for {ONE_HOT_LIMIT} symbols and fewer"
    if shape.block is None:
        return "weights and states do not fit into a TPU's fast memory"
    return None
