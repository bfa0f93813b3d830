"""Each step from scores to a character against its promise in docs/sampling.md."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy.special import chdtrc

# Makes a pytree of SamplingOptions, so that each case has numbers of its own.
import charjax.sampling.draw  # noqa: F401
from charjax import Vocabulary
from charjax.sampling.choice import choose, constrained
from charjax.sampling.limits import Limits, limits_of
from charjax.sampling.options import SamplingOptions
from charjax.sampling.past import extended, past_of

VOCAB = 12
CASES = 200
EXAMPLES = 10
DRAWS = 200_000
CLOSE = 1e-6
K = 5
FORCED = np.float32(1e6)
PRIME = 6

seeds = st.integers(0, 2**32 - 1)
scales = st.sampled_from([0.1, 1.0, 3.0, 10.0])
many = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
)


class Left(NamedTuple):
    """Probabilities [cases, symbols] after a step, and how far each case is from another
    outcome: the least distance of a symbol to a threshold."""

    probabilities: np.ndarray
    distance: np.ndarray


def scaled(weights):
    total = weights.sum(-1, keepdims=True)
    return np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)


def powered(probabilities, power):
    """Each to a power, relative to the likeliest, so that not all underflow."""
    scores = logs(probabilities) * power
    most = scores.max(-1, keepdims=True)
    return scaled(np.exp(scores - np.where(np.isfinite(most), most, 0)))


def logs(probabilities):
    with np.errstate(divide="ignore"):
        return np.log(probabilities)


def softmax(logits):
    return scaled(np.exp(logits - logits.max(-1, keepdims=True)))


def gap(one, other):
    """How far a cut between two symbols is from the other order; exact ties are certain."""
    with np.errstate(invalid="ignore"):
        return np.where(one == other, np.inf, np.abs(one - other))


def top_k(p, k):
    order = np.argsort(-p, axis=-1, kind="stable")
    ranked = np.take_along_axis(p, order, -1)
    kept = np.argsort(order, axis=-1) < k
    cut = logs(ranked)
    return Left(scaled(np.where(kept, p, 0)), gap(cut[:, k - 1], cut[:, k]))


def fewest(p, key, share):
    """The fewest first by key, ties to the lower id, that have the share together."""
    order = np.argsort(key, axis=-1, kind="stable")
    before = np.cumsum(np.take_along_axis(p, order, -1), -1)
    before = np.pad(before[:, :-1], ((0, 0), (1, 0)))
    needed = before < share
    needed[:, 0] = True
    kept = np.take_along_axis(needed, np.argsort(order, axis=-1), -1) & (p > 0)
    ranked = np.take_along_axis(key, order, -1)
    last = needed.sum(-1, keepdims=True) - 1
    cut = [np.take_along_axis(ranked, np.minimum(last + i, VOCAB - 1), -1) for i in (0, 1)]
    distance = np.minimum(np.abs(before - share)[:, 1:].min(-1), gap(*cut)[:, 0])
    return Left(scaled(np.where(kept, p, 0)), distance)


def top_p(p, share):
    return fewest(p, -logs(p), share)


def min_p(p, least):
    relative = p / p.max(-1, keepdims=True)
    kept = relative >= least
    return Left(scaled(np.where(kept, p, 0)), np.abs(relative - least).min(-1))


def typical_p(p, share):
    surprise = -np.log(np.where(p > 0, p, 1))
    expected = (p * surprise).sum(-1, keepdims=True)
    # What is gone already comes last.
    return fewest(p, np.where(p > 0, np.abs(surprise - expected), 1e9), share)


FILTERS = {"top_k": top_k, "top_p": top_p, "min_p": min_p, "typical_p": typical_p}


def filtered(p, numbers):
    """From probabilities after bans and penalty to those of the draw."""
    p = powered(p, 1 / numbers["temperature"])
    distance = np.full(len(p), np.inf)
    for name, keep in FILTERS.items():
        if name in numbers:
            p, near = keep(p, numbers[name])
            distance = np.minimum(distance, near)
    return Left(p, distance)


def some_logits(random, scale, rows=CASES):
    """A third of the rows has many ties, 0 and -0 among them."""
    logits = random.normal(size=(rows, VOCAB)) * scale
    logits[::3] = np.round(logits[::3] / scale) * scale
    return logits.astype(np.float32)


def some_numbers(random, steps):
    """One number for each case, as float32 like those that reach the compiled loop."""
    numbers = {"temperature": np.exp(random.uniform(-0.7, 0.7, CASES))}
    for step in steps:
        numbers[step] = random.uniform(0.02, 1, CASES)
    return {name: np.float32(values) for name, values in numbers.items()}


def stacked(numbers, **static):
    """One pytree of the options of all cases, each checked as it is built."""
    rows = np.stack(list(numbers.values()), -1).tolist()
    options = [
        SamplingOptions(**dict(zip(numbers, row, strict=True)), **static) for row in rows
    ]
    return jax.tree.map(lambda *values: np.array(values, np.float32), *options)


def columns(numbers, **static):
    return {k: v.astype(float)[:, None] for k, v in numbers.items()} | static


@jax.jit
def forced(scores, options):
    """What is drawn where noise puts each place first by far: ids and log-probabilities
    [cases, width]."""

    def one(scores, options):
        noise = FORCED * jnp.eye(options.top_k or VOCAB)
        return choose(jnp.broadcast_to(scores, (len(noise), VOCAB)), options, noise)

    return jax.vmap(one)(scores, options)


def recovered(ids, log_probs):
    """Probabilities [cases, symbols] from the draws of `forced`; what is never drawn: 0."""
    found = np.zeros((len(ids), VOCAB))
    np.put_along_axis(found, np.asarray(ids), np.exp(np.float64(log_probs)), -1)
    return found


def assert_same(found, expected, most_set_aside=0.02):
    certain = expected.distance > CLOSE
    assert certain.mean() >= 1 - most_set_aside
    found, wanted = found[certain], expected.probabilities[certain]
    # exp of a log-probability below -700 is still above 0 in float64.
    np.testing.assert_array_equal(found > 0, wanted > 0)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=CLOSE)


ALONE = {
    "temperature": ((), {}),
    "top_k": ((), {"top_k": K}),
    "top_p": (("top_p",), {}),
    "min_p": (("min_p",), {}),
    "typical_p": (("typical_p",), {}),
    "all": (("top_p", "min_p", "typical_p"), {"top_k": 9}),
}


@pytest.mark.parametrize("name", ALONE)
@many
@given(seed=seeds, scale=scales)
def test_each_filter_leaves_the_distribution_it_promises(name, seed, scale):
    steps, static = ALONE[name]
    random = np.random.default_rng(seed)
    logits = some_logits(random, scale)
    numbers = some_numbers(random, steps)
    found = recovered(*forced(logits, stacked(numbers, **static)))
    p = softmax(logits.astype(float))
    assert_same(found, filtered(p, columns(numbers, **static)))


@pytest.mark.parametrize("name", ["top_p", "min_p", "typical_p"])
@many
@given(seed=seeds, scale=scales)
def test_a_filter_of_share_1(name, seed, scale):
    """top_p and typical_p leave all but a rest of 1e-6; min_p all the likeliest."""
    logits = some_logits(np.random.default_rng(seed), scale)
    numbers = {"temperature": np.ones(CASES), name: np.ones(CASES)}
    found = recovered(*forced(logits, stacked(numbers)))
    p = softmax(logits.astype(float))
    if name == "min_p":
        p = scaled(1.0 * (logits == logits.max(-1, keepdims=True)))
    np.testing.assert_allclose(found, p, rtol=0, atol=2 * CLOSE)


@many
@given(seed=seeds, scale=scales)
def test_temperature_0_takes_the_likeliest_of_the_lowest_id(seed, scale):
    random = np.random.default_rng(seed)
    logits = some_logits(random, scale)
    numbers = some_numbers(random, ["top_p", "min_p", "typical_p"])
    numbers["temperature"] = np.zeros(CASES, np.float32)
    ids, log_probs = forced(logits, stacked(numbers, top_k=K))
    assert (np.asarray(ids) == logits.argmax(-1)[:, None]).all()
    assert (np.asarray(log_probs) == 0).all()


@pytest.mark.parametrize("name", ALONE)
def test_the_draws_follow_the_filtered_distribution(name):
    steps, static = ALONE[name]
    random = np.random.default_rng(7)
    logits = random.normal(size=(1, VOCAB)).astype(np.float32)
    numbers = {"temperature": 0.8} | {
        step: {"top_p": 0.9, "min_p": 0.1, "typical_p": 0.8}[step] for step in steps
    }
    options = SamplingOptions(**numbers, **static)
    expected = filtered(softmax(logits.astype(float)), numbers | static).probabilities[0]
    noise = random.gumbel(size=(DRAWS, options.top_k or VOCAB)).astype(np.float32)
    ids, _ = jax.jit(choose)(np.tile(logits, (DRAWS, 1)), options, noise)
    counts = np.bincount(np.asarray(ids), minlength=VOCAB)
    kept = expected > 0
    assert kept.sum() > 1 and counts[~kept].sum() == 0
    wanted = DRAWS * expected[kept]
    assert wanted.min() > 5
    chi_squared = ((counts[kept] - wanted) ** 2 / wanted).sum()
    assert chdtrc(kept.sum() - 1, chi_squared) > 1e-4


def some_primes(random, rows, alphabet):
    """Ids with -1 in front of those shorter than PRIME."""
    primes = random.integers(0, alphabet, (rows, PRIME)).astype(np.int32)
    lengths = random.integers(1, PRIME + 1, (rows, 1))
    return np.where(np.arange(PRIME) < PRIME - lengths, -1, primes)


def repeating(text, n):
    """The symbols that would write n symbols in a row again, one passage at a time."""
    end = text[len(text) - n + 1 :]
    if len(text) < n:
        return set()
    return {text[i + n - 1] for i in range(len(text) - n + 1) if text[i : i + n - 1] == end}


def constrained_by_hand(logits, texts, numbers, n, window, allowed):
    """Probabilities [cases, symbols] after bans, no_repeat and penalty."""
    left = np.ones(logits.shape, bool) & allowed
    recent = np.zeros(logits.shape, bool)
    for row, text in enumerate(texts):
        left[row, list(repeating(text, n))] = False
        recent[row, text[-window:]] = True
    # A row without a symbol that is left is 0 everywhere.
    p = scaled(softmax(logits.astype(float)) * left)
    powers = np.where(recent, numbers["repetition_penalty"].astype(float)[:, None], 1)
    return powered(p, powers)


ALLOWED = np.arange(VOCAB) % 5 != 1


@jax.jit
def _constrained(logits, primes, options):
    """Scores [cases, symbols], each with a prime and options of its own."""
    limits = Limits(allowed=ALLOWED)

    def one(logits, prime, options):
        past = past_of(prime[None], 8, options, limits)
        return constrained(logits[None], past, jnp.int32(0), options, limits)[0]

    return jax.vmap(one)(logits, primes, options)


@many
@given(seed=seeds, scale=scales)
def test_the_whole_order(seed, scale):
    """Bans and penalties, temperature, top-k, top-p, min-p, typical-p, each after the
    other, of a history whose alphabet is small."""
    random = np.random.default_rng(seed)
    logits = some_logits(random, scale)
    primes = some_primes(random, CASES, 4)
    numbers = some_numbers(random, ["top_p", "min_p", "typical_p"])
    numbers["repetition_penalty"] = np.float32(random.uniform(0.5, 2, CASES))
    static = {"top_k": 8, "no_repeat": 2, "repetition_window": 3}
    options = stacked(numbers, **static)
    scores = _constrained(logits, primes, options)
    texts = [[int(i) for i in prime if i >= 0] for prime in primes]
    p = constrained_by_hand(logits, texts, numbers, 2, 3, ALLOWED)
    found = recovered(*forced(np.asarray(scores), options))
    assert_same(found, filtered(p, columns(numbers) | {"top_k": 8}))


@functools.partial(jax.jit, static_argnums=0)
def _along(options, logits, primes, new):
    """Scores [steps, cases, symbols] before each symbol of texts that are given."""

    def step(past, each):
        position, ids = each
        scores = constrained(logits, past, position, options, Limits())
        none = jnp.zeros(len(ids), bool)
        return extended(past, ids, none, position + 1, options, Limits())[0], scores

    past = past_of(primes, len(new), options, Limits())
    return jax.lax.scan(step, past, (jnp.arange(len(new)), new))[1]


@pytest.mark.parametrize(("n", "window"), [(1, 2), (2, 5), (3, 64), (8, 1)])
def test_repeats_against_a_loop(n, window):
    random = np.random.default_rng(n)
    rows, steps = 150, 14
    logits = some_logits(random, 2.0, rows)
    primes = some_primes(random, rows, 3)
    new = random.integers(0, 3, (steps, rows)).astype(np.int32)
    options = SamplingOptions(repetition_penalty=1.3, no_repeat=n, repetition_window=window)
    scores = np.float64(_along(options, logits, primes, new))
    texts = [[int(i) for i in prime if i >= 0] for prime in primes]
    assert min(map(len, texts)) < n or n == 1
    numbers = {"repetition_penalty": np.full(rows, 1.3)}
    found_any = False
    for step in range(steps):
        p = constrained_by_hand(logits, texts, numbers, n, window, True)
        found_any |= bool((p == 0).any())
        np.testing.assert_array_equal(np.isfinite(scores[step]), p > 0)
        weights = scores[step] - np.maximum(scores[step].max(-1, keepdims=True), -1e9)
        np.testing.assert_allclose(scaled(np.exp(weights)), p, rtol=0, atol=CLOSE)
        for text, each in zip(texts, new[step], strict=True):
            text.append(int(each))
    assert found_any


def end_of(prime, new, stops, least):
    """How many new symbols a text has where it ends; None where it goes on."""
    text = prime + new
    ends = []
    for stop in stops:
        # The first that ends after the prime and no earlier than the least length.
        first = max(0, len(prime) + max(least, 1) - len(stop))
        found = text.find(stop, first)
        if found >= 0:
            ends.append(found + len(stop) - len(prime))
    return min(ends, default=None)


@jax.jit
def _ended(primes, new, stops, options):
    """Whether each text [cases] has ended, after each of its new symbols."""

    def one(prime, new, stops, options):
        limits = Limits(stops=stops)

        def step(past, each):
            count, symbol = each
            none = jnp.zeros(1, bool)
            past, _ = extended(past, symbol[None], none, count, options, limits)
            return past, past.ended[0] > 0

        past = past_of(prime[None], len(new), options, limits)
        return jax.lax.scan(step, past, (1 + jnp.arange(len(new)), new))[1]

    return jax.vmap(one)(primes, new, stops, options)


def test_stop_strings_against_find():
    random = np.random.default_rng(3)
    rows, steps, longest = 2000, 16, 4
    vocabulary = Vocabulary.from_text("abc")
    primes = some_primes(random, rows, 3)
    new = random.integers(0, 3, (rows, steps)).astype(np.int32)
    least = random.integers(0, 8, rows) * random.integers(0, 2, rows)
    lengths = random.integers(1, longest + 1, (rows, 3))
    stops = [tuple("".join(random.choice(list("abc"), k)) for k in row) for row in lengths]
    ids = np.full((rows, 3, longest), -1, np.int32)
    for row, each in enumerate(stops):
        encoded = limits_of(SamplingOptions(stop=each), vocabulary).stops
        assert encoded is not None
        ids[row, :, longest - encoded.shape[1] :] = encoded
    # Which strings they are is told by `ids`: each case has its own.
    each_least = [SamplingOptions(stop="a", min_length=int(k)) for k in least]
    options = jax.tree.map(lambda *values: np.array(values), *each_least)
    ended = np.asarray(_ended(primes, new, ids, options))
    across = 0
    for row in range(rows):
        prime = vocabulary.decode(primes[row][primes[row] >= 0])
        written = vocabulary.decode(new[row])
        wanted = end_of(prime, written, stops[row], int(least[row]))
        found = 1 + int(ended[row].argmax()) if ended[row].any() else None
        assert found == wanted, (prime, written, stops[row], least[row])
        across += wanted is not None and not any(s in written[:wanted] for s in stops[row])
    assert across > 20


def test_a_document_does_not_end_before_the_least_length():
    """Its symbol gets 0 before the penalty, which sees the others scaled to a sum of 1."""
    p = np.float32([[0.5, 0.3, 0.2]])
    limits = Limits(end=0)
    options = SamplingOptions(min_length=2, repetition_penalty=2.0)
    past = past_of(np.array([[1]], np.int32), 4, options, limits)
    for position, after in [(1, [0, 0.6**2, 0.4]), (2, [0.5, 0.3**2, 0.2])]:
        scores = constrained(jnp.log(p), past, jnp.int32(position), options, limits)
        found = np.exp(np.float64(scores[0]))
        np.testing.assert_allclose(scaled(found), scaled(np.array(after)), atol=CLOSE)
