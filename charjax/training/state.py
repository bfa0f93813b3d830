"""The state of a run as one pytree of arrays."""

from dataclasses import dataclass, fields
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from charjax.config.schema import Config
from charjax.model.arguments import check_config
from charjax.model.arithmetic import usual_promotion
from charjax.model.network import init, initial_carry
from charjax.model.parameters import Params
from charjax.training.freezing import trainable
from charjax.training.optimizer import optimizer as configured
from charjax.training.optimizer import usable


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything that training changes; the rest follows from config, corpus and seed."""

    step: Any
    """Updates done, int32 scalar."""

    params: Params
    """Parameters, float32."""

    opt_state: Any
    """The optimizer's state; of frozen parameters it keeps nothing."""

    carry: Any
    """Recurrent state of each row of the batch, leaves `[l, b, h]` float32."""

    def __repr__(self) -> str:
        # Not its values: they may be traced, donated, or be no arrays at all.
        leaves, first = jax.tree.leaves(self.params), jax.tree.leaves(self.carry)[:1]
        size = sum(getattr(leaf, "size", 0) for leaf in leaves)
        carry = "".join(f", carry {list(getattr(leaf, 'shape', ()))}" for leaf in first)
        return f"<TrainState {size:,} parameters in {len(leaves)} arrays{carry}>"


ITEMS = tuple(field.name for field in fields(TrainState) if field.name != "step")
"""The items of a checkpoint: all of a state but its step, which is in the name."""


@usual_promotion()
def initial_state(
    config: Config,
    vocab_size: int,
    key: Array,
    params: Params | None = None,
    optimizer: optax.GradientTransformation | None = None,
) -> TrainState:
    """The state before the first update.

    Args:
      config: the run's config, its schedule resolved.
      vocab_size: number of symbols.
      key: PRNG key of the initial parameters.
      params: parameters to start from instead.
      optimizer: what turns gradients into updates; None is what the config says.
    """
    check_config(config)
    chain = usable(configured(config) if optimizer is None else optimizer)
    params = init(config, vocab_size, key) if params is None else params
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=chain.init(trainable(config, params)),
        carry=initial_carry(config, config.data.batch_size),
    )
