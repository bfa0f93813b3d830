"""The loss of a character."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Integer


def cross_entropy(
    logits: Float[Array, "*positions symbols"],
    targets: Integer[Array | np.ndarray, "*positions"],
) -> Float[Array, "*positions"]:
    """Nats of each target id, given logits that are not normalised."""
    # The target's logit by comparison, since a gather's gradient is a scatter.
    symbols = jnp.arange(logits.shape[-1], dtype=targets.dtype)
    target = jnp.where(symbols == targets[..., None], logits, 0.0).sum(-1)
    return jax.nn.logsumexp(logits, axis=-1) - target
