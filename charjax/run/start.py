"""The state that training begins with: fresh, from another run, or restored."""

from typing import Any

import jax
import numpy as np
from jax import Array

from charjax.config.schema import Config
from charjax.devices import placement, processes
from charjax.run import origin as origins
from charjax.run.plan import Plan
from charjax.run.text_of_run import check_text
from charjax.storage.record import Standing, read
from charjax.storage.saver import Saver
from charjax.training.state import ITEMS, TrainState


def prng_keys(config: Config) -> tuple[Array, Array]:
    """The keys of the initial parameters and of the steps."""
    initial, steps = jax.random.split(jax.random.key(config.train.seed))
    return initial, steps


def items(state: TrainState) -> dict[str, Any]:
    """The items of a checkpoint by name."""
    return {name: getattr(state, name) for name in ITEMS}


def first_state(plan: Plan, saver: Saver | None) -> tuple[TrainState, Standing]:
    """The state to go on from, and how the run stands there."""
    newest = saver.latest() if saver is not None and processes.is_first() else None
    step = processes.from_first(-1 if newest is None else newest)
    if saver is None or step < 0:
        return _fresh(plan), Standing()
    record = plan.record
    if record is None or record.step != step:
        # A step that was whole but had no name yet when the run was planned.
        record = read(saver, step)
        check_text(record, saver.directory.parent, plan.surveyed.text)
    count = placement.put(np.int32(step), plan.sharding.step)
    restored = saver.restore(step, items(plan.abstract))
    return TrainState(step=count, **restored), record.standing


def _fresh(plan: Plan) -> TrainState:
    key, _ = prng_keys(plan.config)
    params, place = None, plan.sharding
    if plan.origin is not None:
        vocabulary = plan.surveyed.text.vocabulary
        params = origins.parameters_for(plan.config, vocabulary, plan.origin, key)
    if plan.mesh.size > 1 and jax.default_backend() == "cpu":
        # Each of several CPU devices would do all the work, on the same cores.
        return placement.put(jax.jit(plan.make)(key, params), place)
    if params is not None:
        params = placement.put(params, place.params)
    return jax.jit(plan.make, out_shardings=place)(key, params)
