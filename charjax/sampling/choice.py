"""The next character from its scores: what may not be drawn, then the filters, then one."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from charjax.sampling import filters
from charjax.sampling.limits import Limits
from charjax.sampling.options import SamplingOptions
from charjax.sampling.past import Past, penalized, repeating


def constrained(
    logits: Float[Array, "batch vocab"],
    past: Past | None,
    position: Array,
    options: SamplingOptions,
    limits: Limits,
) -> Float[Array, "batch vocab"]:
    """Scores of the next character, -inf for what must not be drawn."""
    banned = []
    if options.no_repeat is not None and past is not None:
        banned.append(repeating(past.text, options.no_repeat, logits.shape[1]))
    if limits.allowed is not None:
        banned.append(~jnp.asarray(limits.allowed))
    if limits.end is not None:
        early = position < options.min_length
        banned.append(early & (jnp.arange(logits.shape[1]) == limits.end))

    def without_banned(scores: Array) -> Array:
        for each in banned:
            scores = jnp.where(each, -jnp.inf, scores)
        return scores

    scores = without_banned(logits)
    if options.repetition_penalty is not None and past is not None:
        recent = past.text[:, -options.repetition_window :]
        scores = penalized(scores, recent, options.repetition_penalty)
        # Where all are banned there is nothing to scale to a sum of 1, only NaN.
        scores = without_banned(scores)
    return scores


def choose(
    scores: Float[Array, "batch vocab"], options: SamplingOptions, gumbel: Array
) -> tuple[Int[Array, " batch"], Float[Array, " batch"]]:
    """One id for each row, `[b]` int32, and its log-probability under the options."""
    rows, symbols = len(scores), None
    temperature = jnp.broadcast_to(jnp.asarray(options.temperature, jnp.float32), (rows,))
    greedy = temperature == 0
    scale = 1 / jnp.where(greedy, 1.0, temperature)
    likeliest = scores.argmax(-1)
    if options.top_k is not None or options.top_p is not None:
        # top_k puts 0 before -0, whichever has the lower id.
        scores = jnp.where(scores == 0, 0.0, scores)
        scores, symbols = jax.lax.top_k(scores, options.top_k or scores.shape[1])
    # Relative to the likeliest, since a tiny temperature would make infinities of both.
    scaled = (scores - scores.max(-1, keepdims=True)) * scale[:, None]
    if options.top_p is not None:
        scaled = _kept(scaled, filters.top_p(scaled, options.top_p))
    if options.min_p is not None:
        scaled = _kept(scaled, filters.min_p(scaled, options.min_p))
    if options.typical_p is not None:
        if symbols is None:
            symbols = jnp.broadcast_to(jnp.arange(scaled.shape[1]), scaled.shape)
        order = filters.typical_order(scaled)
        _, symbols, scaled = jax.lax.sort((order, symbols, scaled), num_keys=2)
        scaled = _kept(scaled, filters.typical_p(scaled, options.typical_p))
    drawn = (scaled + gumbel).argmax(-1)
    chosen = at_ids(jax.nn.log_softmax(scaled), drawn)
    if symbols is not None:
        drawn = at_ids(symbols, drawn)
    ids = jnp.where(greedy, likeliest, drawn).astype(jnp.int32)
    return ids, jnp.where(greedy, 0.0, chosen)


def _kept(scores: Array, keep: Array) -> Array:
    return jnp.where(keep, scores, -jnp.inf)


def at_ids(values: Array, ids: Array) -> Array:
    """Of each row the value at its id."""
    return jnp.take_along_axis(values, ids[:, None], axis=1)[:, 0]
