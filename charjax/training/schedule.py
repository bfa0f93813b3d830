"""The learning rate over the updates of a run, and how many those are."""

import math
from typing import Any

import jax.numpy as jnp
import optax
from jax import Array

from charjax.config.optimizer import ENDING
from charjax.config.schema import Config
from charjax.errors import InputError


def schedule(config: Config, peak: Array | float | None = None) -> optax.Schedule:
    """The learning rate as a function of the number of updates done, from 0.

    `peak` stands in for `optimizer.learning_rate`. Raises InputError when the schedule
    needs a length that the config does not have; `resolve` fills it in.
    """
    options = config.optimizer
    rate: Any = options.learning_rate if peak is None else peak
    if options.schedule == "constant":
        return _warmed_up(config, rate, optax.constant_schedule(rate))
    if options.schedule == "exponential":
        return _warmed_up(config, rate, _exponential(config, rate))
    *earlier, last = (
        (until, _warmed_up(config, rate, _falling(config, rate, end)))
        for until, end in _ends(config)
    )

    def piecewise(count: Any) -> Any:
        value = last[1](count)
        for until, before in reversed(earlier):
            value = jnp.where(count < until, before(count), value)
        return value

    return piecewise if earlier else last[1]


def _warmed_up(config: Config, rate: Any, main: optax.Schedule) -> optax.Schedule:
    warmup = config.optimizer.warmup_steps
    if warmup == 0:
        return main
    # From peak / warmup, since a first update with rate 0 would be lost.
    rise = optax.linear_schedule(rate / warmup, rate, max(warmup - 1, 1))
    return optax.join_schedules([rise, main], [warmup])


def _ends(config: Config) -> list[tuple[float, int]]:
    """The ends of a schedule: pairs of a number of updates and the end that holds up to
    there, the last one for ever."""
    options = config.optimizer
    end = options.schedule_steps or config.train.steps
    if end is None:
        raise InputError(
            "optimizer.schedule_steps is None, and train.steps too: the "
            f"{options.schedule} schedule needs the number of updates until its end."
        )
    return [*(options.earlier_schedule_steps or ()), (math.inf, end)]


def _falling(config: Config, rate: Any, end: int) -> optax.Schedule:
    """cosine or linear, counted from the end of the warm-up."""
    options = config.optimizer
    steps, share = max(end - options.warmup_steps, 1), options.final_scale
    if options.schedule == "cosine":
        return optax.cosine_decay_schedule(rate, steps, share)
    return optax.linear_schedule(rate, rate * share, steps)


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


def with_end(config: Config, end: int, step: int) -> Config:
    """The config of a run whose schedule, from `step` updates on, ends at `end`.

    What was before `step` stays as it was, so that a run that goes on from an older
    checkpoint does the same again.

    >>> config = Config().replace(**{"optimizer.schedule_steps": 100})
    >>> longer = with_end(config, 200, 100)
    >>> [float(schedule(longer)(count)) > 0 for count in (99, 100, 199, 200)]
    [True, True, True, False]
    """
    ends = _ends(config)
    before = [(until, earlier) for until, earlier in ends if until < step]
    _, held = ends[len(before)]
    if held != end and step > 0:
        before.append((step, held))
    return _ending(config, end, before)


def _ending(config: Config, end: int, earlier: list[tuple[float, int]]) -> Config:
    ends = {"schedule_steps": end, "earlier_schedule_steps": earlier or None}
    return config.replace(**{f"optimizer.{name}": ends[name] for name in ends})


def pieces(config: Config) -> list[tuple[float, Config]]:
    """The config as one for each end that its schedule has had: pairs of a number of
    updates and the config that holds up to there, the last one for ever.

    A run whose schedule was given another end is a run of each of them in turn, bit for
    bit; one program for all would round otherwise.

    >>> config = Config().replace(**{"optimizer.schedule_steps": 100})
    >>> for until, piece in pieces(with_end(config, 200, 100)):
    ...     print(until, piece.optimizer.schedule_steps)
    100 100
    inf 200
    """
    if config.optimizer.earlier_schedule_steps is None:
        return [(math.inf, config)]
    return [(until, _ending(config, end, [])) for until, end in _ends(config)]


def updates_at_zero(config: Config, first: int, total: int) -> int:
    """How many of the updates after `first`, up to `total`, have a rate of exactly 0.

    Of schedules that end; an exponential one only comes near.

    >>> config = Config().replace(**{"optimizer.schedule_steps": 100})
    >>> updates_at_zero(config, 40, 240)
    140
    """
    options = config.optimizer
    if options.schedule not in ENDING or options.final_scale > 0:
        return 0
    zeros, begun = 0, first
    for until, end in _ends(config):
        zeros += max(min(until, total) - max(begun, end, options.warmup_steps + 1), 0)
        begun = max(begun, until)
    return int(zeros)


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
