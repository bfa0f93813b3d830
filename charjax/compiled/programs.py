"""The programs of a run, as the commands compile them, for devices of any kind.

Nothing is computed: arguments are shapes, with the place where each is to lie.
"""

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from charjax.compiled.hlo import Origins
from charjax.compiled.names import EVALUATION, LAYER, READING, TRAINING
from charjax.config.schema import Config
from charjax.devices import mesh as meshes
from charjax.devices import placement
from charjax.evaluation.evaluate import jitted_step
from charjax.model.network import init, initial_carry
from charjax.model.parameters import table
from charjax.model.variants import cell_of
from charjax.sampling import draw as sampling
from charjax.sampling.chunks import CHUNK, PASS, jitted_draw, jitted_prefill
from charjax.sampling.options import SamplingOptions
from charjax.text.batching import Batch
from charjax.training.program import training_program
from charjax.training.schedule import resolve
from charjax.training.state import initial_state

# A schedule needs the length of an epoch, which is the text's; the program is the same.
_EPOCH = 1000

ORIGINS: Origins = {
    "charjax/model/recurrence/": "time",
    "charjax/model/stack.py": "layers",
    "charjax/training/step.py": "parts",
    "charjax/sampling/draw.py": "characters",
}
"""What the loops of our files go over."""


@dataclass(frozen=True)
class Sizes:
    """What a program is compiled for, beside the config."""

    vocab_size: int

    streams: int = 1
    """Texts that are drawn at once."""


@dataclass(frozen=True)
class Built:
    """A program that can be compiled."""

    jitted: Any
    arguments: tuple[Any, ...]
    mesh: Mesh

    parts: Mapping[str, int]
    """Bytes of its arguments on each device, by what they are."""

    rows: int
    steps: int
    """Rows of a batch and time steps, or characters drawn, in one run."""

    recurrence: str
    """What runs, and why."""

    origins: Origins


def build(name: str, config: Config, sizes: Sizes, devices: list[Any]) -> Built:
    """The program of a name, for these devices.

    Raises InputError where the devices do not divide a batch or a layer.
    """
    config = resolve(config, _EPOCH)
    mesh = meshes.make_mesh(devices, config.parallel.model)
    meshes.check_devices(config, mesh)
    if name == TRAINING:
        return _training(config, sizes, mesh)
    if name == EVALUATION:
        return _evaluation(config, sizes, mesh)
    # A text is drawn on one device.
    alone = meshes.make_mesh(devices[:1])
    if name == LAYER:
        return _layer(config, alone, config.data.batch_size // meshes.rows_share(mesh))
    one = _reading if name == READING else _sampling
    return one(config, sizes, alone)


def _training(config: Config, sizes: Sizes, mesh: Mesh) -> Built:
    rows, steps = config.data.batch_size, config.data.sequence_length
    recurrence = meshes.recurrence_for(config, mesh)
    key = _key()
    shapes = jax.eval_shape(functools.partial(initial_state, config, sizes.vocab_size), key)
    sharding = placement.state_sharding(mesh, config, shapes)
    batch, batch_bytes = _batch(config, mesh, rows, steps)
    parts = {
        name: placement.bytes_on_device(getattr(shapes, field), getattr(sharding, field))
        for name, field in (
            *(("parameters", "params"), ("optimizer", "opt_state")),
            ("carry", "carry"),
        )
    }
    return Built(
        jitted=training_program(config, mesh, sharding, recurrence),
        arguments=(placement.abstract(shapes, sharding), batch, key),
        mesh=mesh,
        parts={**parts, "batch": batch_bytes},
        rows=rows,
        steps=steps,
        recurrence=recurrence.describe(cell_of(config.model)),
        origins=ORIGINS,
    )


def _evaluation(config: Config, sizes: Sizes, mesh: Mesh) -> Built:
    share, steps = meshes.rows_share(mesh), config.data.sequence_length
    rows = -(-config.train.eval_rows // share) * share
    recurrence = meshes.inference_recurrence(config, mesh)
    params = _params(config, sizes)
    place = placement.params_sharding(mesh, config, params)
    carry = jax.eval_shape(functools.partial(initial_carry, config, rows))
    where = jax.tree.map(lambda _: placement.carry_sharding(mesh), carry)
    batch, batch_bytes = _batch(config, mesh, rows, steps)
    return Built(
        jitted=jitted_step,
        arguments=(
            *(config, placement.abstract(params, place)),
            *(placement.abstract(carry, where), batch, recurrence),
        ),
        mesh=mesh,
        parts={
            "parameters": placement.bytes_on_device(params, place),
            "carry": placement.bytes_on_device(carry, where),
            "batch": batch_bytes,
        },
        rows=rows,
        steps=steps,
        recurrence=recurrence.describe(cell_of(config.model)),
        origins=ORIGINS,
    )


def _reading(config: Config, sizes: Sizes, mesh: Mesh) -> Built:
    recurrence = meshes.inference_recurrence(config, mesh, (1, PASS))
    whole = functools.partial(_whole, mesh)
    params, state = _params(config, sizes), _sampling_state(config, sizes, 1)
    ids = whole(jax.ShapeDtypeStruct((1, PASS), jnp.int32))
    lengths = whole(jax.ShapeDtypeStruct((1,), jnp.int32))
    arguments = (config, whole(params), whole(state), ids, lengths, recurrence)
    parts = {"parameters": _bytes(params), "carry": _bytes(state)}
    said = recurrence.describe(cell_of(config.model))
    return Built(jitted_prefill, arguments, mesh, parts, 1, PASS, said, ORIGINS)


def _sampling(config: Config, sizes: Sizes, mesh: Mesh) -> Built:
    rows = sizes.streams
    recurrence = meshes.inference_recurrence(config, mesh, (rows, 1))
    whole = functools.partial(_whole, mesh)
    params, state = _params(config, sizes), _sampling_state(config, sizes, rows)
    options = jax.tree.map(
        lambda _: whole(jax.ShapeDtypeStruct((), jnp.float32)), SamplingOptions()
    )
    draw = (whole(params), whole(state), CHUNK, _key(), options, recurrence)
    parts = {"parameters": _bytes(params), "carry": _bytes(state)}
    said = recurrence.describe(cell_of(config.model))
    return Built(jitted_draw, (config, *draw), mesh, parts, rows, CHUNK, said, ORIGINS)


def _layer(config: Config, mesh: Mesh, rows: int) -> Built:
    """One layer that reads features as wide as itself, and its gradient, on one device."""
    model, steps = config.model, config.data.sequence_length
    recurrence = meshes.recurrence_for(config, mesh, (rows, steps))
    cell, hidden = cell_of(model), model.hidden_size
    one = dataclasses.replace(model, num_layers=1, embedding_size=hidden)
    layer = {
        name: jax.ShapeDtypeStruct(each.shape, jnp.float32)
        for name, each in table(one, 1)["first"].items()
    }
    stacked = jax.eval_shape(lambda: cell.initial_state(1, rows, hidden))
    state = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), stacked
    )
    inputs = jax.ShapeDtypeStruct((steps, rows, hidden), jnp.float32)

    def layer_gradient(layer: Any, inputs: Any, state: Any) -> Any:
        def run(*arguments: Any) -> Any:
            return recurrence.run(cell, config.train.precision, *arguments)

        (hidden, state), back = jax.vjp(run, layer, inputs, state)
        return back((hidden, state))

    arguments = tuple(_whole(mesh, each) for each in (layer, inputs, state))
    parts = {"parameters": _bytes(layer), "carry": _bytes(state), "batch": _bytes(inputs)}
    said = recurrence.describe(cell)
    return Built(
        jax.jit(layer_gradient), arguments, mesh, parts, rows, steps, said, ORIGINS
    )


def _key() -> Any:
    return jax.eval_shape(lambda: jax.random.key(0))


def _params(config: Config, sizes: Sizes) -> Any:
    return jax.eval_shape(functools.partial(init, config, sizes.vocab_size), _key())


def _sampling_state(config: Config, sizes: Sizes, rows: int) -> Any:
    first = jax.ShapeDtypeStruct((sizes.vocab_size,), jnp.float32)
    return jax.eval_shape(lambda first: sampling.start(config, first, rows), first)


def _batch(config: Config, mesh: Mesh, rows: int, steps: int) -> tuple[Batch, int]:
    """The shapes of a batch and its bytes on each device."""
    kinds: list[tuple[int, Any]] = [(steps, np.int32), (steps, np.int32)]
    kinds += [(steps, np.bool_), (steps if config.data.has_documents else 1, np.bool_)]
    shapes = Batch(*(jax.ShapeDtypeStruct((rows, n), kind) for n, kind in kinds))
    where = jax.tree.map(lambda _: placement.batch_sharding(mesh), shapes)
    return placement.abstract(shapes, where), placement.bytes_on_device(shapes, where)


def _whole(mesh: Mesh, tree: Any) -> Any:
    place: NamedSharding = placement.replicated(mesh)
    return placement.abstract(tree, jax.tree.map(lambda _: place, tree))


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
