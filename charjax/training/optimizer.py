"""optax chains and schedules from the config."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from charjax.config.schema import Config
from charjax.errors import InputError


def schedule(config: Config) -> optax.Schedule:
    """The learning rate as a function of the number of updates done, from 0.

    Raises InputError when the schedule needs a length that the config does not have;
    `resolve` fills it in.
    """
    options = config.optimizer
    peak, warmup = options.learning_rate, options.warmup_steps
    end, kind = peak * options.final_scale, options.schedule
    if kind == "constant":
        main = optax.constant_schedule(peak)
    elif kind == "exponential":
        main = _exponential(config)
    else:
        horizon = options.schedule_steps or config.train.steps
        if horizon is None:
            raise InputError(
                f"optimizer.schedule_steps is None, and train.steps too: the {kind} "
                "schedule needs the number of updates until its end."
            )
        steps = max(horizon - warmup, 1)
        if kind == "cosine":
            main = optax.cosine_decay_schedule(peak, steps, options.final_scale)
        else:
            main = optax.linear_schedule(peak, end, steps)
    if warmup == 0:
        return main
    # From peak / warmup, since a first update with rate 0 would be lost.
    rise = optax.linear_schedule(peak / warmup, peak, max(warmup - 1, 1))
    return optax.join_schedules([rise, main], [warmup])


def _exponential(config: Config) -> optax.Schedule:
    options = config.optimizer
    if options.epoch_steps is None:
        raise InputError(
            "optimizer.epoch_steps is None: the exponential schedule needs the number of "
            "updates in an epoch."
        )
    # char-rnn looks at the end of an epoch, so the first one is never decayed.
    epoch_steps, after = options.epoch_steps, max(options.decay_after_epochs, 1)

    def rate(count: Any) -> Array:
        decays = jnp.maximum(count // epoch_steps - after + 1, 0)
        return options.learning_rate * options.decay_rate ** decays.astype(jnp.float32)

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


def optimizer(config: Config) -> optax.GradientTransformation:
    """The chain: clip, scale by the named optimizer, decay matrices, learning rate.

    Every schedule has the same state tree, so a schedule never stands in the way of a
    restore.
    """
    options = config.optimizer
    chain = []
    if options.clip_value is not None:
        chain.append(optax.clip(options.clip_value))
    if options.clip_norm is not None:
        chain.append(optax.clip_by_global_norm(options.clip_norm))
    chain.append(_scale(options.name, options.beta1, options.beta2))
    if options.weight_decay > 0:
        chain.append(optax.add_decayed_weights(options.weight_decay, are_matrices))
    chain.append(optax.scale_by_learning_rate(schedule(config)))
    return optax.chain(*chain)


def _scale(name: str, beta1: float | None, beta2: float | None) -> Any:
    usual1 = {"sgd": 0.0, "muon": 0.95}.get(name, 0.9)
    usual2 = {"rmsprop": 0.95, "lion": 0.99}.get(name, 0.999)
    b1 = usual1 if beta1 is None else beta1
    b2 = usual2 if beta2 is None else beta2
    if name in ("adam", "adamw"):
        return optax.scale_by_adam(b1, b2)
    if name == "rmsprop":
        return optax.scale_by_rms(b2, eps_in_sqrt=False)
    if name == "adagrad":
        return optax.scale_by_rss(initial_accumulator_value=0.0, eps=1e-8)
    if name == "sgd":
        return optax.trace(b1) if b1 > 0 else optax.identity()
    if name == "lion":
        return optax.scale_by_lion(b1, b2)
    # Updates with the root mean square of Adam's, so that one learning rate serves both
    # (Liu et al. 2025, arXiv 2502.16982); the sign is undone because the chain's own
    # learning rate comes later.
    muon = optax.contrib.muon(
        1.0,
        beta=b1,
        adam_b2=b2,
        consistent_rms=0.2,
        muon_weight_dimension_numbers=matrix_axes,
    )
    return optax.chain(muon, optax.scale(-1.0))


def are_matrices(params: Any) -> Any:
    """True for kernels and the embedding table, False for biases, by name: a bias of
    stacked layers has as many axes as a matrix."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: not _name(path).startswith("bias"), params
    )


def matrix_axes(params: Any) -> Any:
    """For muon: the axes of the matrix in each kernel of the stack, None elsewhere.

    Gates and layers are separate matrices: `[e, g, h]` and `[l, e, g, h]` have inputs at
    axis -3 and outputs at -1. A first layer that reads ids one-hot has an embedding for
    a kernel and is left to Adam like embedding, head and biases.
    """

    def axes(path: Any, leaf: Any) -> Any:
        room, name = path[0].key, _name(path)
        one_hot = room == "first" and name == "kernel_x" and "embedding" not in params
        if room not in ("first", "rest") or name.startswith("bias") or one_hot:
            return None
        return optax.contrib.MuonDimensionNumbers(leaf.ndim - 3, leaf.ndim - 1)

    return jax.tree_util.tree_map_with_path(axes, params)


def _name(path: Any) -> str:
    return path[-1].key
