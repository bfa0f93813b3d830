"""The training step as a run compiles it."""

import functools
from collections.abc import Callable

import jax
import optax
from jax.sharding import Mesh

from charjax.config.schema import Config
from charjax.devices import placement
from charjax.model.recurrence.choose import Recurrence
from charjax.training.state import TrainState
from charjax.training.step import Metrics, train_step


def training_program(
    config: Config,
    mesh: Mesh,
    sharding: TrainState,
    recurrence: Recurrence,
    optimizer: optax.GradientTransformation | None = None,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """`train_step(state, batch, key)` under `jit`: the state is donated, and the one after
    lies where it did; `sharding` is that of each of its leaves."""
    step = functools.partial(
        train_step,
        config,
        optimizer=optimizer,
        recurrence=recurrence,
        gather=placement.gathered(mesh, config),
    )
    shardings = (sharding, placement.replicated(mesh))
    return jax.jit(step, donate_argnums=0, out_shardings=shardings)
