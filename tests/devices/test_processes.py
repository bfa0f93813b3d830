"""Two processes train and evaluate as one does."""

import os
import subprocess
import sys

import pytest
from subprocesses import free_address

PROGRAM = """
import functools, sys
import jax
import numpy as np
index, count = map(int, sys.argv[1:3])
jax.config.update("jax_num_cpu_devices", 4 // count)
if count > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(sys.argv[3], count, index)
from charjax.config.schema import Config
from charjax.evaluation.evaluate import evaluate
from charjax.text.batching import batch_at
from charjax.devices import mesh as meshes
from charjax.devices import placement
from charjax.training.state import initial_state
from charjax.training.step import train_step
config = Config().replace(**{
    "data.sequence_length": 4, "data.batch_size": 8, "model.hidden_size": 4,
    "model.cell": "gru", "model.dropout": 0.3})
ids = np.random.default_rng(0).integers(5, size=200).astype(np.uint8)
key, mesh = jax.random.key(0), meshes.make_mesh()
make = lambda key: initial_state(config, 5, key)
sharding = placement.state_sharding(mesh, config, jax.eval_shape(make, key))
state = jax.jit(make, out_shardings=sharding)(key)
update = jax.jit(functools.partial(train_step, config), donate_argnums=0,
                 out_shardings=(sharding, placement.replicated(mesh)))
for step in range(5):
    batch = batch_at(ids, config.data, 0, step, meshes.local_rows(mesh, 8))
    state, metrics = update(state, placement.put_batch(mesh, batch), key)
    print("RESULT", float(metrics["loss"]))
for window in (None, 9):
    result = evaluate(config, state.params, ids, rows=6, window=window)
    print("RESULT", result.nats_per_char)
"""


def results(count):
    meeting = free_address()
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(index), str(count), meeting],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for index in range(count)
    ]
    found = []
    try:
        for process in processes:
            output, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors[-2000:]
            lines = [line for line in output.splitlines() if line.startswith("RESULT")]
            found.append([float(line.split()[1]) for line in lines])
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return found


@pytest.mark.slow
def test_two_processes_train_and_evaluate_as_one_does():
    (alone,) = results(1)
    assert len(alone) == 7
    for together in results(2):
        assert together == pytest.approx(alone, rel=1e-5)
