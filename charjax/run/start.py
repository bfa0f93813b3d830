"""The state that training begins with: fresh, from another run, or restored."""

import dataclasses

import jax
import numpy as np
from jax import Array

from charjax.config.schema import Config
from charjax.devices import placement, processes
from charjax.run.opened import Run
from charjax.run.plan import check_text
from charjax.storage.record import Standing, read
from charjax.training.state import TrainState


def prng_keys(config: Config) -> tuple[Array, Array]:
    """The keys of the initial parameters and of the steps."""
    initial, steps = jax.random.split(jax.random.key(config.train.seed))
    return initial, steps


def first_state(run: Run) -> tuple[TrainState, Standing]:
    """The state to go on from, and how the run stands there."""
    newest = None
    if run.checkpoints is not None and processes.is_first():
        newest = run.checkpoints.latest()
    step = processes.from_first(-1 if newest is None else newest)
    return _restored(run, step) if step >= 0 else (_fresh(run), Standing())


def _fresh(run: Run) -> TrainState:
    plan, (key, _) = run.plan, prng_keys(run.config)
    if plan.mesh.size > 1 and jax.default_backend() == "cpu":
        # Each of several CPU devices would do all the work, on the same cores.
        state = placement.put(jax.jit(plan.make)(key), plan.sharding)
    else:
        state = jax.jit(plan.make, out_shardings=plan.sharding)(key)
    if plan.origin is None:
        return state
    params = placement.put(plan.origin, plan.sharding.params)
    return dataclasses.replace(state, params=params)


def _restored(run: Run, step: int) -> tuple[TrainState, Standing]:
    plan, record = run.plan, run.plan.record
    assert run.checkpoints is not None and plan.workdir is not None
    if record is None or record.step != step:
        # A step that was whole but had no name yet when the run was planned.
        record = read(run.checkpoints, step)
        check_text(record, run.config, plan.workdir, run.corpus.text)
    target = plan.abstract
    items = run.checkpoints.restore(
        step,
        {"params": target.params, "opt_state": target.opt_state, "carry": target.carry},
    )
    count = placement.put(np.int32(step), plan.sharding.step)
    return TrainState(step=count, **items), record.standing
