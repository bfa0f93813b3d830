"""The learning rate over the updates of a run, and how many those are."""

from typing import Any

import jax.numpy as jnp
import optax
from jax import Array

from charjax.config.schema import Config
from charjax.errors import InputError


def schedule(config: Config, peak: Array | float | None = None) -> optax.Schedule:
    """The learning rate as a function of the number of updates done, from 0.

    `peak` stands in for `optimizer.learning_rate`. Raises InputError when the schedule
    needs a length that the config does not have; `resolve` fills it in.
    """
    options = config.optimizer
    peak, warmup = options.learning_rate if peak is None else peak, options.warmup_steps
    rate: Any = peak
    if options.schedule == "constant":
        main = optax.constant_schedule(rate)
    elif options.schedule == "exponential":
        main = _exponential(config, peak)
    else:
        horizon = options.schedule_steps or config.train.steps
        if horizon is None:
            raise InputError(
                "optimizer.schedule_steps is None, and train.steps too: the "
                f"{options.schedule} schedule needs the number of updates until its end."
            )
        steps, share = max(horizon - warmup, 1), options.final_scale
        if options.schedule == "cosine":
            main = optax.cosine_decay_schedule(rate, steps, share)
        else:
            main = optax.linear_schedule(rate, rate * share, steps)
    if warmup == 0:
        return main
    # From peak / warmup, since a first update with rate 0 would be lost.
    rise = optax.linear_schedule(rate / warmup, rate, max(warmup - 1, 1))
    return optax.join_schedules([rise, main], [warmup])


def _exponential(config: Config, peak: Array | float) -> optax.Schedule:
    options = config.optimizer
    if options.epoch_steps is None:
        raise InputError(
            "optimizer.epoch_steps is None: the exponential schedule needs the number of "
            "updates in an epoch."
        )
    # char-rnn looks at the end of an epoch, so the first one is never decayed.
    epoch_steps, after = options.epoch_steps, max(options.decay_after_epochs, 1)

    def rate(count: Any) -> Any:
        decays = jnp.maximum(count // epoch_steps - after + 1, 0)
        return peak * options.decay_rate ** decays.astype(jnp.float32)

    return rate


def resolve(config: Config, epoch_steps: int) -> Config:
    """The config with the schedule's horizon fixed, which later lengths leave alone."""
    options = config.optimizer
    changes: dict[str, int] = {}
    if options.schedule_steps is None:
        changes["optimizer.schedule_steps"] = total_steps(config, epoch_steps)
    if options.epoch_steps is None:
        changes["optimizer.epoch_steps"] = epoch_steps
    return config.replace(**changes)


def total_steps(config: Config, epoch_steps: int) -> int:
    """Updates in the whole run: `train.steps` or `train.epochs`, whichever ends first."""
    steps, epochs = config.train.steps, config.train.epochs
    lengths = [] if steps is None else [steps]
    if epochs is not None:
        lengths.append(max(round(epochs * epoch_steps), 1))
    return min(lengths)
