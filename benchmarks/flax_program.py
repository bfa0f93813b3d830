"""Flax's own `nn.RNN(OptimizedLSTMCell)`: its training step for `charjax.compile_for`."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.flax_rows import initial_state, update_step
from benchmarks.work import Work
from charjax.compiled.programs import Built, Sizes
from charjax.config.schema import Config
from charjax.devices import mesh as meshes
from charjax.devices import placement
from charjax.text.batching import Batch

# Every loop of it goes over time.
_ORIGINS = {"": "time"}


def build(name: str, config: Config, sizes: Sizes, devices: list[Any]) -> Built:
    """The step of the same sizes, optimizer and loss, its rows split over all devices."""
    assert name == "training" and config.model.cell == "lstm"
    model, data = config.model, config.data
    work = Work(
        num_layers=model.num_layers,
        hidden_size=model.hidden_size,
        vocab_size=sizes.vocab_size,
        batch_size=data.batch_size,
        sequence_length=data.sequence_length,
        dropout=model.dropout,
    )
    mesh = meshes.make_mesh(devices)
    whole, rows = placement.replicated(mesh), placement.batch_sharding(mesh)
    shapes = jax.eval_shape(functools.partial(initial_state, work))
    params, moments, carry = shapes
    sharding = (
        *(jax.tree.map(lambda _: whole, tree) for tree in (params, moments)),
        jax.tree.map(lambda _: rows, carry),
    )
    shape, flags = (data.batch_size, data.sequence_length), (data.batch_size, 1)
    kinds = ((shape, np.int32), (shape, np.int32), (shape, np.bool_), (flags, np.bool_))
    batch = Batch(
        *(jax.ShapeDtypeStruct(size, kind, sharding=rows) for size, kind in kinds)
    )
    step = functools.partial(update_step, work, jnp.dtype(config.train.precision))
    taken = [
        placement.bytes_on_device(*pair) for pair in zip(shapes, sharding, strict=True)
    ]
    return Built(
        jitted=jax.jit(step, donate_argnums=0, out_shardings=(sharding, whole)),
        arguments=(
            placement.abstract(shapes, sharding),
            batch,
            jax.eval_shape(lambda: jax.random.key(0)),
        ),
        mesh=mesh,
        parts=dict(zip(("parameters", "optimizer", "carry"), taken, strict=True)),
        rows=data.batch_size,
        steps=data.sequence_length,
        recurrence="nn.RNN(OptimizedLSTMCell)",
        origins=_ORIGINS,
    )
