"""The optimizer: an optax chain from the config, or what is passed in its place."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import optax

from charjax.config.schema import Config
from charjax.errors import InputError
from charjax.model.parameters import Params, decaying, matrix_axes
from charjax.training.hyperparameters import Hyperparameters
from charjax.training.schedule import schedule


def optimizer(
    config: Config, hyperparameters: Hyperparameters | None = None
) -> optax.GradientTransformation:
    """The chain: clip, scale by the named optimizer, decay matrices, learning rate.

    `hyperparameters` stand in for the values that the config has. Every schedule has the
    same state tree, so a schedule never stands in the way of a restore.
    """
    options, values = config.optimizer, hyperparameters
    decay = options.weight_decay if values is None else values.weight_decay
    peak = None if values is None else values.learning_rate
    chain = []
    if options.clip_value is not None:
        chain.append(optax.clip(options.clip_value))
    if options.clip_norm is not None:
        chain.append(optax.clip_by_global_norm(options.clip_norm))
    chain.append(_scale(config))
    if options.weight_decay > 0:
        chain.append(optax.add_decayed_weights(decay, decaying(config.model)))
    chain.append(optax.scale_by_learning_rate(schedule(config, peak)))
    return optax.chain(*chain)


def usable(optimizer: Any) -> optax.GradientTransformationExtraArgs:
    """An optimizer as a step calls it, with more arguments by name; InputError if it is
    none."""
    if not all(callable(getattr(optimizer, part, None)) for part in ("init", "update")):
        raise InputError(
            f"optimizer is {optimizer!r}: give an optax.GradientTransformation, such as "
            "optax.adam(1e-3), or a name in the config's optimizer.name."
        )
    return optax.with_extra_args_support(optimizer)


def update(
    config: Config,
    optimizer: optax.GradientTransformation,
    grads: Params,
    state: Any,
    params: Params,
    value: Any,
    value_fn: Callable[[Params], Any],
) -> tuple[Any, Any]:
    """What to add to `params`, and the optimizer's state after.

    By name an optimizer gets the loss as `value`, `grad` and, where a batch is not cut into
    parts, the loss of other parameters as `value_fn`.
    """
    extra = {"value": value, "grad": grads}
    if config.optimizer.accumulate == 1:
        extra["value_fn"] = value_fn
    return usable(optimizer).update(grads, state, params, **extra)


def check_usable(config: Config, optimizer: Any, params: Params) -> None:
    """Refuses what is no optimizer, and one that needs more than a step has.

    `params` are shapes and dtypes of what is trained; nothing is computed.
    """
    usable(optimizer)

    def first(params: Params) -> Any:
        state, value = optimizer.init(params), optax.tree.sum
        return update(config, optimizer, params, state, params, value(params), value)

    try:
        jax.eval_shape(first, params)
    except TypeError as error:
        raise InputError(
            f"optimizer is {name_of(optimizer)}: give one that needs no more than a step "
            "has: gradients, state, parameters, and by name value, grad and, where "
            f"optimizer.accumulate is 1, value_fn ({str(error).partition(chr(10))[0]})."
        ) from error


def name_of(optimizer: Any) -> str:
    """What made an optimizer, as far as it can be told: for people and for comparison.

    >>> name_of(optax.adam(1e-3))
    'optax.chain'
    """
    made_by: Any = optimizer.update
    while isinstance(made_by, functools.partial):
        made_by = made_by.func
    if not hasattr(made_by, "__qualname__"):
        made_by = type(made_by)
    room, function = made_by.__module__ or "", made_by.__qualname__
    return f"{room.partition('.')[0]}.{function.partition('.')[0]}"


def _scale(config: Config) -> Any:
    options = config.optimizer
    name, beta1, beta2 = options.name, options.beta1, options.beta2
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
    axes: Any = {
        group: {
            name: pair and optax.contrib.MuonDimensionNumbers(*pair)
            for name, pair in members.items()
        }
        for group, members in matrix_axes(config.model).items()
    }
    muon = optax.contrib.muon(
        1.0,
        beta=b1,
        adam_b2=b2,
        consistent_rms=0.2,
        muon_weight_dimension_numbers=axes,
    )
    return optax.chain(muon, optax.scale(-1.0))
