"""The numbers in which the members of a sweep differ, as data."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from charjax.config.schema import Config


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Hyperparameters:
    """What may change from step to step without another compilation; `vmap` takes many.

    Whether a thing is on at all is the config's: where `model.dropout` or
    `optimizer.weight_decay` is 0, its value here is not looked at. A 0 here is the same as
    a 0 there, but for the time it takes. Each is a float32 scalar.
    """

    learning_rate: Any
    """The peak of the schedule."""

    weight_decay: Any

    dropout: Any

    @classmethod
    def of(cls, config: Config) -> "Hyperparameters":
        """Those of a config, float32 scalars.

        >>> float(Hyperparameters.of(Config()).dropout)
        0.20000000298023224
        """
        options = config.optimizer
        values = options.learning_rate, options.weight_decay, config.model.dropout
        return cls(*(jnp.float32(value) for value in values))
