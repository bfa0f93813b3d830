"""Meshes, placement and what the devices cannot share."""

import re
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from charjax.config.schema import Config
from charjax.devices import mesh as meshes
from charjax.devices import placement
from charjax.errors import InputError
from charjax.text.batching import Batch
from charjax.training.state import initial_state


def make_config(rows, parts=1):
    return Config().replace(**{"data.batch_size": rows, "optimizer.accumulate": parts})


def some_batch(rows, steps=3):
    random = np.random.default_rng(0)
    ids = random.integers(50, size=(2, rows, steps)).astype(np.int32)
    return Batch(*ids, random.random((rows, steps)) < 0.5, random.random(rows) < 0.5)


@pytest.mark.parametrize(
    ("rows", "devices", "parts", "fitting"),
    [
        (12, 8, 1, [8, 16]),
        (5, 8, 1, [8]),
        (1, 2, 1, [2]),
        (16, 8, 4, [32]),
        (36, 8, 2, [32, 48]),
        (10, 3, 1, [9, 12]),
    ],
)
def test_check_devices_names_what_would_fit(rows, devices, parts, fitting):
    mesh = meshes.make_mesh(jax.devices()[:devices])
    with pytest.raises(InputError) as refusal:
        meshes.check_devices(make_config(rows, parts), mesh)
    message = str(refusal.value)
    assert message.startswith(f"data.batch_size is {rows}: {devices} devices")
    assert f"{' or '.join(map(str, fitting))} would fit" in message
    assert ("optimizer.accumulate" in message) == (parts > 1)
    for size in fitting:
        meshes.check_devices(make_config(size, parts), mesh)
    assert "1 devices" not in message
    # A resumed run cannot change its batch, but may use fewer devices.
    if found := re.search(r"or ([^;]*) devices?\.$", message):
        for count in map(int, re.findall(r"\d+", found[1].split("fit, or ")[-1])):
            fewer = meshes.make_mesh(jax.devices()[:count])
            meshes.check_devices(make_config(rows, parts), fewer)


def test_what_fsdp_cannot_split_is_refused():
    config = Config().replace(
        **{"data.batch_size": 8, "model.hidden_size": 100, "parallel.fsdp": True}
    )
    refusal = r"hidden_size is 100: 8 devices \(parallel\.fsdp\) .* 96 or 104 would fit"
    with pytest.raises(InputError, match=refusal):
        meshes.check_devices(config, meshes.make_mesh())
    meshes.check_devices(config, meshes.make_mesh(model=2))


def test_a_mesh_of_all_devices_or_of_some():
    assert meshes.make_mesh().size == len(jax.devices()) == 8
    assert list(meshes.make_mesh(jax.devices()[2:5]).devices.flat) == jax.devices()[2:5]


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_put_batch_round_trip(devices):
    mesh, batch = meshes.make_mesh(jax.devices()[:devices]), some_batch(16)
    placed = placement.put_batch(mesh, batch)
    for there, here in zip(placed, batch, strict=True):
        assert there.dtype == here.dtype and there.shape == here.shape
        np.testing.assert_array_equal(there, here)
        shards = there.addressable_shards
        assert {shard.data.shape[0] for shard in shards} == {16 // devices}
        assert len(shards) == devices


def test_state_sharding_splits_the_rows_of_the_carry_only():
    mesh, config = meshes.make_mesh(), make_config(16)
    shapes = jax.eval_shape(lambda: initial_state(config, 9, jax.random.key(0)))
    sharding = placement.state_sharding(mesh, config, shapes)
    assert jax.tree.structure(sharding) == jax.tree.structure(shapes)
    whole = (sharding.step, sharding.params, sharding.opt_state)
    assert all(place.is_fully_replicated for place in jax.tree.leaves(whole))
    for leaf, place in zip(
        jax.tree.leaves(shapes.carry), jax.tree.leaves(sharding.carry), strict=True
    ):
        layers, rows, hidden = leaf.shape
        assert place.shard_shape(leaf.shape) == (layers, rows // 8, hidden)
    abstract = placement.abstract(shapes, sharding)
    for leaf, shape in zip(jax.tree.leaves(abstract), jax.tree.leaves(shapes), strict=True):
        assert (leaf.shape, leaf.dtype) == (shape.shape, shape.dtype)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_local_rows_of_all_processes_are_all_rows(monkeypatch, processes):
    owners = [SimpleNamespace(process_index=k * processes // 8) for k in range(8)]
    mesh: Any = SimpleNamespace(devices=np.array(owners).reshape(4, 2))
    rows = []
    for index in range(processes):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        rows += range(*meshes.local_rows(mesh, 16))
    assert rows == list(range(16))


_LARGE_START = """
import functools, jax
jax.config.update("jax_num_cpu_devices", 2)
from charjax import Config, DataConfig, ModelConfig
from charjax.devices import mesh as meshes
from charjax.devices import placement
from charjax.training.state import initial_state

config = Config(data=DataConfig(batch_size=8), model=ModelConfig(hidden_size=128))
make = functools.partial(initial_state, config, 30)
mesh = meshes.make_mesh()
shapes = jax.eval_shape(make, jax.random.key(0))
sharding = placement.state_sharding(mesh, config, shapes)
jax.block_until_ready(jax.jit(make, out_shardings=sharding)(jax.random.key(0)))
"""


def test_parameters_begin_on_several_cpu_devices_without_a_deadlock():
    # XLA's batched QR waits for ever where there are fewer cores than it needs.
    subprocess.run([sys.executable, "-c", _LARGE_START], check=True, timeout=60)
