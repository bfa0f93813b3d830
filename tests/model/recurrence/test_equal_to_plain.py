"""Every implementation of the recurrence against autodiff of the plain scan.

A new one is a row of `IMPLEMENTATIONS`.
"""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from one_layer import (
    CELLS,
    arguments,
    assert_close,
    error,
    outputs_of,
    value_and_gradients,
)

from charjax import Config
from charjax.devices import mesh as meshes
from charjax.devices import placement
from charjax.model.recurrence import cpu, gpu, plain, scan, tpu, triton
from charjax.model.recurrence.layout import GENERAL
from charjax.model.recurrence.place import Place
from charjax.text.batching import batch_at
from charjax.training.schedule import resolve
from charjax.training.state import initial_state
from charjax.training.step import train_step

ALL, OURS = tuple(CELLS), ("gru", "lstm", "rnn")


@dataclasses.dataclass(frozen=True)
class Implementation:
    """What is tested, and at which sizes."""

    run: object
    cells: tuple[str, ...] = OURS
    """The cells it is tested with; one that it leaves to another may be among them."""

    bound: float = 0.03
    """Of bfloat16: relative error, by norms, of each value and each gradient against the
    plain scan in float32. That scan in bfloat16 is off by up to 0.02 here."""

    sizes: tuple[int, int] = (5, 4)
    """Inputs and units."""

    rows: int = 6
    marks: str | None = None
    """What the program of each of its cells has in it, so that leaving a cell to `scan`
    is not taken for being equal."""

    kernels: tuple[str, ...] = OURS
    """The cells that it leaves to no other."""

    steps: int = 9

    long: int = 300
    """Steps of a long memory; fewer where each is interpreted."""


def _scan(layout):
    return functools.partial(scan.run, layout=layout)


IMPLEMENTATIONS = {
    "scan": Implementation(_scan(GENERAL), ALL),
    "scan, CPU": Implementation(_scan(cpu.ONE_DEVICE), ALL),
    "scan, several CPUs": Implementation(_scan(cpu.SEVERAL_DEVICES), ALL),
    "gpu": Implementation(gpu.run, (*OURS, "layer norm"), steps=12),
    # Rows, inputs and units that fill no tile, and blocks of two steps.
    "tpu": Implementation(
        tpu.run, (*OURS, "layer norm"), rows=6, marks="pallas_call", steps=6, long=60
    ),
    "triton": Implementation(
        triton.run,
        ("gru", "lstm", "layer norm"),
        sizes=(5, 32),
        rows=16,
        marks="pallas_call",
        kernels=("gru", "lstm"),
        long=60,
    ),
}
CASES = [
    pytest.param(name, cell, one_hot, id=f"{name}, {cell}{', ids' if one_hot else ''}")
    for name, implementation in IMPLEMENTATIONS.items()
    for cell in implementation.cells
    for one_hot in (False, True)
]
# Where ids are read is the same for every cell.
SOME = [case for case in CASES if not case.values[2] or case.values[1] == "lstm"]
NO_IDS = [case for case in CASES if not case.values[2]]
LSTM = [case for case in NO_IDS if case.values[1] == "lstm"]
# All cells read ids in one implementation; in the others they are slow tests.
EACH = [
    case
    if case in SOME or case.values[0] == "scan"
    else pytest.param(*case.values, marks=pytest.mark.slow, id=case.id)
    for case in CASES
]

every_case = pytest.mark.parametrize(("name", "cell", "one_hot"), EACH)
some_cases = pytest.mark.parametrize(("name", "cell", "one_hot"), SOME)
every_cell = pytest.mark.parametrize(("name", "cell", "one_hot"), NO_IDS)
every_implementation = pytest.mark.parametrize(("name", "cell", "one_hot"), LSTM)


def layer_of(name, cell, one_hot, steps=None):
    it = IMPLEMENTATIONS[name]
    steps = steps or it.steps
    return arguments(cell, steps, it.rows, one_hot=one_hot, sizes=it.sizes)


@functools.cache
def expected(cell, one_hot, steps, rows, sizes, resets=False):
    args = arguments(cell, steps, rows, one_hot=one_hot, sizes=sizes)
    reset = reset_of(steps, rows) if resets else None
    return value_and_gradients(plain.run, cell, "float32", args, reset=reset)


def reset_of(steps, rows):
    """By row: at the first step, the second, the last, two of them, every one, none."""
    reset = np.zeros((steps, rows), bool)
    reset[0, 0] = reset[1, 1] = reset[-1, 2] = True
    reset[[2, 4], 3] = reset[:, 4] = True
    return jnp.asarray(reset)


@every_case
def test_values_and_gradients_equal_the_plain_scan(name, cell, one_hot):
    it = IMPLEMENTATIONS[name]
    for steps in (it.steps, 1):
        args = layer_of(name, cell, one_hot, steps)
        hand = value_and_gradients(it.run, cell, "float32", args)
        exact = expected(cell, one_hot, steps, it.rows, it.sizes)
        assert_close(hand, exact, 1e-5)


@some_cases
def test_resets_inside_a_window_equal_the_plain_scan(name, cell, one_hot):
    it = IMPLEMENTATIONS[name]
    args, reset = layer_of(name, cell, one_hot), reset_of(it.steps, it.rows)
    exact = expected(cell, one_hot, it.steps, it.rows, it.sizes, resets=True)
    hand = value_and_gradients(it.run, cell, "float32", args, reset=reset)
    assert_close(hand, exact, 1e-5)
    # What a row was before counts for nothing where it begins again.
    for leaf in map(np.asarray, jax.tree.leaves(exact[1][1])):
        assert not leaf[[0, 4]].any() and leaf[[1, 2, 3, 5]].any()


@some_cases
def test_bfloat16_is_close_and_keeps_states_and_gradients_in_float32(name, cell, one_hot):
    it = IMPLEMENTATIONS[name]
    args, reset = layer_of(name, cell, one_hot), reset_of(it.steps, it.rows)
    exact = expected(cell, one_hot, it.steps, it.rows, it.sizes)
    rounded = value_and_gradients(it.run, cell, "bfloat16", args)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(rounded))
    assert 0 < error(rounded, exact) < it.bound
    exact = expected(cell, one_hot, it.steps, it.rows, it.sizes, resets=True)
    rounded = value_and_gradients(it.run, cell, "bfloat16", args, reset=reset)
    assert 0 < error(rounded, exact) < it.bound


@every_cell
def test_saturated_gates_have_finite_gradients_equal_to_the_plain_scans(
    name, cell, one_hot
):
    it = IMPLEMENTATIONS[name]
    layer, inputs, state = layer_of(name, cell, one_hot)
    args = ({**layer, "bias": layer["bias"] * 200}, inputs, state)
    rounded = value_and_gradients(it.run, cell, "bfloat16", args)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(rounded))
    hand = value_and_gradients(it.run, cell, "float32", args)
    assert_close(hand, value_and_gradients(plain.run, cell, "float32", args), 1e-5)


@every_cell
def test_where_every_step_begins_again_the_hidden_kernel_learns_nothing(
    name, cell, one_hot
):
    it = IMPLEMENTATIONS[name]
    args, reset = layer_of(name, cell, one_hot), jnp.ones((it.steps, it.rows), bool)
    _, gradients = value_and_gradients(it.run, cell, "float32", args, reset=reset)
    assert not gradients[0]["kernel_h"].any()


@every_cell
def test_length_holds_each_rows_state(name, cell, one_hot):
    it = IMPLEMENTATIONS[name]
    layer, inputs, state = layer_of(name, cell, one_hot)
    length = jnp.arange(it.rows) % (it.steps + 1)
    hand, exact = (
        outputs_of(run, cell)(layer, inputs, state, length=length)
        for run in (it.run, plain.run)
    )
    assert_close(hand, exact, 1e-5)


def test_several_steps_a_round_are_the_same_text_read():
    layer, inputs, state = arguments("lstm", 17, 6, one_hot=True)
    args = CELLS["lstm"], "float32", layer, inputs, state
    length = jnp.arange(6) * 3
    on_gpu = plain.run(*args, length=length, place=Place("gpu"))
    assert_close(on_gpu, plain.run(*args, length=length), 1e-6)


@every_cell
def test_bfloat16_gradients_hold_over_a_long_memory(name, cell, one_hot):
    # Gates that let nearly everything through, step after step: rounded towards 1, they
    # would let through a different amount each time in the same direction.
    gate = {"lstm": "forget", "gru": "update"}.get(cell)
    if gate is None:
        pytest.skip("it has no gate that keeps")
    it = IMPLEMENTATIONS[name]
    layer, inputs, state = layer_of(name, cell, one_hot, it.long)
    bias = layer["bias"].at[CELLS[cell].gates.index(gate)].set(6.0)
    args = ({key: 0.05 * value for key, value in layer.items()} | {"bias": bias},)
    args = (*args, inputs, state)
    _, exact = value_and_gradients(plain.run, cell, "float32", args)
    _, rounded = value_and_gradients(it.run, cell, "bfloat16", args)
    assert error(rounded, exact) < 0.03


@every_implementation
def test_float32_products_are_float32_unless_a_process_asks_for_less(name, cell, one_hot):
    it = IMPLEMENTATIONS[name]
    args = layer_of(name, cell, one_hot)

    def precisions():
        # A new function each time, or the first trace would be taken again.
        trace = jax.make_jaxpr(
            lambda args: value_and_gradients(it.run, cell, "float32", args)
        )
        found = re.findall(r"\bprecision=(\(?[\w.]+)", str(trace(args)))
        return {word.removeprefix("(").removeprefix("Precision.") for word in found}

    assert precisions() == {"HIGHEST"}
    with jax.default_matmul_precision("tensorfloat32"):
        assert "HIGHEST" not in precisions()


@every_implementation
def test_under_vmap_it_is_the_same(name, cell, one_hot):
    it = IMPLEMENTATIONS[name]
    several = [
        arguments(cell, it.steps, it.rows, sizes=it.sizes, seed=seed) for seed in (0, 1)
    ]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *several)

    def total(run, args):
        hidden, last = run(CELLS[cell], "float32", *args)
        return (hidden**2).sum() + sum((leaf**2).sum() for leaf in last)

    hand = jax.jit(jax.vmap(jax.grad(functools.partial(total, it.run))))(stacked)
    alone = jax.jit(jax.grad(functools.partial(total, plain.run)))
    exact = [alone(args) for args in several]
    assert_close(hand, jax.tree.map(lambda *leaves: jnp.stack(leaves), *exact), 1e-5)


@pytest.mark.parametrize("name", [n for n, it in IMPLEMENTATIONS.items() if it.marks])
def test_it_leaves_to_others_only_what_it_must(name):
    it = IMPLEMENTATIONS[name]
    for cell in it.kernels:
        for one_hot in (False, True):
            args = layer_of(name, cell, one_hot)
            trace = jax.make_jaxpr(
                lambda args, cell=cell: value_and_gradients(it.run, cell, "bfloat16", args)
            )
            assert str(trace(args)).count(it.marks) >= 2


# One step of training, whose gradient is of every parameter, on so many devices.
LAYOUTS = {
    "one device": (1, 1, {}),
    "in parts": (1, 1, {"optimizer.accumulate": 2}),
    "four devices": (4, 1, {}),
    "four devices, in parts": (4, 1, {"optimizer.accumulate": 2}),
    "units split": (4, 2, {}),
    "parameters split": (4, 1, {"parallel.fsdp": True}),
}
VOCABULARY = 12
IDS = np.random.default_rng(0).integers(VOCABULARY, size=4000).astype(np.uint8)


@functools.cache
def trained(name, layout, cell, hidden, rows):
    devices, model, fields = LAYOUTS[layout]
    values = {
        **{"data.batch_size": rows, "data.sequence_length": 7, "model.cell": cell},
        **{"model.hidden_size": hidden, "model.num_layers": 3, "model.dropout": 0.3},
        **{"parallel.model": model, "optimizer.name": "sgd", **fields},
    }
    config = resolve(Config().replace(**values), 10)
    mesh = meshes.make_mesh(jax.devices()[:devices], model)
    recurrence = meshes.recurrence_for(config, mesh)
    recurrence = dataclasses.replace(recurrence, name=name, layout=GENERAL)
    make = functools.partial(initial_state, config, VOCABULARY)
    shapes = jax.eval_shape(make, jax.random.key(0))
    sharding = placement.state_sharding(mesh, config, shapes)
    state = jax.jit(make, out_shardings=sharding)(jax.random.key(0))
    rows = meshes.local_rows(mesh, rows)
    batch = placement.put_batch(mesh, batch_at(IDS, config.data, 0, 0, rows))
    step = functools.partial(
        train_step,
        config,
        recurrence=recurrence,
        gather=placement.gathered(mesh, config),
    )
    after, metrics = jax.jit(step)(state, batch, jax.random.key(1))
    return jax.tree.map(np.asarray, (after.params, after.carry, metrics))


# Every implementation in the layout that has most in it, with one cell; the rest is slow.
QUICK = {("gpu", "rnn"), ("tpu", "gru"), ("triton", "lstm")}
STEPS = [
    pytest.param(
        *(name, layout, cell),
        marks=[]
        if layout == "four devices, in parts" and (name, cell) in QUICK
        else pytest.mark.slow,
    )
    for name in ("gpu", "tpu", "triton")
    for layout in LAYOUTS
    for cell in IMPLEMENTATIONS[name].kernels
]


@pytest.mark.parametrize(("name", "layout", "cell"), STEPS)
def test_a_step_of_training_is_that_of_the_plain_scan(name, layout, cell):
    it = IMPLEMENTATIONS[name]
    # So many rows that each device has as many in each part.
    sizes = max(16, it.sizes[1]), 8 * it.rows
    hand = trained(name, layout, cell, *sizes)
    # Each part of a batch drops others.
    whole = "in parts" if "in parts" in layout else "one device"
    assert_close(hand, trained("plain", whole, cell, *sizes), 1e-5)
