"""What is particular to the kernels for TPUs; interpreted, and the rest is in
`test_equal_to_plain.py`."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest
from one_layer import CELLS, arguments, assert_close, value_and_gradients

from charjax.config.model import ModelConfig
from charjax.devices import mesh as meshes
from charjax.model.recurrence import plain, tpu
from charjax.model.recurrence.place import Place
from charjax.model.recurrence.tpu.blocks import vmem
from charjax.model.recurrence.tpu.shape import VMEM, Shape

MIB = 2**20


def shape(cell="lstm", dtype="bfloat16", steps=100, rows=128, width=83, hidden=512):
    parameters = CELLS[cell].parameters(ModelConfig(hidden_size=hidden), width, True)
    sizes = {name: parameter.shape for name, parameter in parameters.items()}
    return Shape.of(CELLS[cell], dtype, sizes, (steps, rows), Place("tpu"), False)


def uses_kernels(run, cell, args):
    trace = jax.make_jaxpr(lambda args: run(CELLS[cell], "float32", *args))
    return "pallas_call" in str(trace(args))


@pytest.mark.parametrize(
    ("steps", "block"), [(8, 4), (6, 2), (5, 1)], ids=["four", "two", "one"]
)
def test_blocks_of_steps_and_tiles_of_units_are_equal_to_the_plain_scan(steps, block):
    # Three tiles of which one is half a tile, or else one; rows and inputs that fill none.
    hidden = 300 if block == 2 else 20
    args = arguments("gru", steps, 3, sizes=(130, hidden))
    layer, inputs, state = args
    args = {name: 0.3 * leaf for name, leaf in layer.items()}, inputs, state
    found = dataclasses.replace(
        shape("gru", "float32", steps, 3, 130, hidden), place=Place("cpu")
    )
    assert found.block == block
    hand = value_and_gradients(tpu.run, "gru", "float32", args)
    assert_close(hand, value_and_gradients(plain.run, "gru", "float32", args), 1e-5)


def test_memory_is_counted_by_what_a_kernel_holds():
    # Of 2 x 512 in bfloat16, two steps at a time: weights and biases once, first state
    # once and the last twice; what is read and written at each step twice; and h twice.
    found = shape()
    assert found.block == 2
    weights, state = (128 + 512) * 2048 * 2 + 8 * 2048 * 4, 128 * 512 * 4
    step = 128 * (128 + 512 + 5 * 512) * 2
    expected = weights + 2 * state + 2 * 2 * state + 2 * 2 * step + 2 * 128 * 512 * 2
    assert vmem(found.forward(True), 2) == expected
    assert found.memory(found.forward(True), 2) == expected + 16 * 128 * 256 * 4


@pytest.mark.parametrize(
    ("fields", "block"),
    [
        ({}, 2),
        ({"hidden": 128}, 4),
        ({"hidden": 128, "steps": 101}, 1),
        ({"hidden": 1024, "width": 1024}, 1),
        ({"rows": 1024}, None),
        ({"hidden": 2048, "width": 2048}, None),
        ({"dtype": "float32"}, 2),
        ({"dtype": "float32", "hidden": 1024}, None),
    ],
    ids=str,
)
def test_so_many_steps_at_once_as_fit(fields, block):
    found = shape(**fields)
    assert found.block == block
    if block is not None:
        assert found.memory(found.backward(), block) <= VMEM


def test_scan_does_what_the_kernels_cannot():
    layer, inputs, state = arguments("lstm", 4, 6)
    args = layer, inputs, state
    assert uses_kernels(tpu.run, "lstm", args)
    assert not uses_kernels(tpu.run, "lstm", (layer, inputs[:1], state))
    with_length = functools.partial(tpu.run, length=jnp.full(6, 3))
    assert not uses_kernels(with_length, "lstm", args)
    assert not uses_kernels(tpu.run, "layer norm", arguments("layer norm", 4, 6))
    large = arguments("lstm", 4, 1, sizes=(8, 2500))
    assert not uses_kernels(tpu.run, "lstm", large)
    for devices, model in ((4, 1), (2, 2)):
        mesh = meshes.make_mesh(jax.devices()[:devices], model)
        place = Place("cpu", mesh, meshes.DATA)
        assert not uses_kernels(functools.partial(tpu.run, place=place), "lstm", args)
    place = Place("cpu", meshes.make_mesh(jax.devices()[:2]), meshes.DATA)
    assert uses_kernels(functools.partial(tpu.run, place=place), "lstm", args)


@pytest.mark.parametrize(
    ("reason", "fields"),
    [
        (None, {}),
        (None, {"mesh": {"data": 4, "model": 1}, "batch": (512, 100)}),
        (None, {"model": ModelConfig(cell="gru", hidden_size=650)}),
        ("not for a GPU", {"platform": "gpu"}),
        ("not for a CPU", {"platform": "cpu"}),
        ("parallel.model", {"mesh": {"data": 2, "model": 2}}),
        ("3 cannot share 128", {"mesh": {"data": 3, "model": 1}}),
        ("two time steps", {"batch": (128, 1)}),
        ("fast memory", {"model": ModelConfig(hidden_size=2048)}),
        ("fast memory", {"batch": (4096, 100)}),
    ],
    ids=str,
)
def test_it_says_why_it_cannot_run_a_model(reason, fields):
    known = {"platform": "tpu", "model": ModelConfig(hidden_size=512), "batch": (128, 100)}
    known |= {"precision": "bfloat16", "mesh": {"data": 1, "model": 1}}
    found = tpu.why_not(**known | fields)
    assert found is None if reason is None else reason in found
