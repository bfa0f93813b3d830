"""Which symbols a draw keeps: pure functions of log-probabilities up to a constant.

Each takes `scores [b, n]` float32, -inf where a symbol is out already, and says which of
the others stay; at least one does. In `scores` the likeliest come first where a function
says `sorted`, symbols of equal likelihood by their ids.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float


def top_p(
    scores: Float[Array, "batch symbols"], share: Array | float
) -> Bool[Array, "batch symbols"]:
    """The fewest that have a share of the probability together; `scores` sorted.

    >>> top_p(jnp.log(jnp.array([[0.5, 0.3, 0.2]])), jnp.array([0.6]))
    Array([[ True,  True, False]], dtype=bool)
    """
    return _fewest(jax.nn.softmax(scores), share)


def min_p(
    scores: Float[Array, "batch symbols"], share: Array | float
) -> Bool[Array, "batch symbols"]:
    """Those at least a share as likely as the likeliest.

    >>> min_p(jnp.log(jnp.array([[0.5, 0.3, 0.2]])), jnp.array([0.5]))
    Array([[ True,  True, False]], dtype=bool)
    """
    relative = jnp.exp(scores - scores.max(-1, keepdims=True))
    return relative >= jnp.asarray(share)[..., None]


def typical_order(scores: Float[Array, "batch symbols"]) -> Float[Array, "batch symbols"]:
    """How far the surprise of each is from the expected surprise, in nats.

    >>> typical_order(jnp.log(jnp.array([[0.5, 0.5]])))
    Array([[0., 0.]], dtype=float32)
    """
    nats = -jax.nn.log_softmax(scores)
    kept = jnp.isfinite(nats)
    expected = jnp.where(kept, jnp.exp(-nats) * jnp.where(kept, nats, 0.0), 0.0)
    return jnp.abs(nats - expected.sum(-1, keepdims=True))


def typical_p(
    scores: Float[Array, "batch symbols"], share: Array | float
) -> Bool[Array, "batch symbols"]:
    """The fewest that have a share of the probability together; `scores` in ascending
    `typical_order`."""
    return _fewest(jax.nn.softmax(scores), share)


def _fewest(
    probabilities: Float[Array, "batch symbols"], share: Array | float
) -> Bool[Array, "batch symbols"]:
    before = jnp.cumsum(probabilities, -1) - probabilities
    # The first has nothing before it but what rounding leaves.
    first = jnp.arange(probabilities.shape[-1]) == 0
    return (before < jnp.asarray(share)[..., None]) | first
