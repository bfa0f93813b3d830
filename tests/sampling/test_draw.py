"""Drawn text against a loop by hand, and the distributions it comes from."""

import functools
import math
import re
from typing import get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from charjax.config.schema import Config
from charjax.errors import InputError
from charjax.model.network import apply, init, initial_carry
from charjax.model.recurrence.choose import Recurrence
from charjax.model.recurrence.place import Place
from charjax.sampling.draw import SamplingState, draw, prefill, sample, start
from charjax.sampling.options import SamplingKeywords, SamplingOptions

VOCAB = 6
CELLS = ["lstm", "gru"]


@functools.cache
def make_config(cell="lstm", embedding=None):
    return Config().replace(
        **{
            "model.cell": cell,
            "model.hidden_size": 8,
            "model.num_layers": 2,
            "model.dropout": 0.5,
            "model.embedding_size": embedding,
        }
    )


@functools.cache
def some_params(config):
    shapes = jax.eval_shape(lambda: init(config, VOCAB, jax.random.key(0)))
    random = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype("f4"), shapes)


def some_ids(rows, steps, seed=0):
    return np.random.default_rng(seed).integers(VOCAB, size=(rows, steps)).astype(np.int32)


compiled_draw = jax.jit(draw, static_argnums=(0, 3))
jit_sample = jax.jit(sample, static_argnums=(0, 3), static_argnames="top_k")
jit_prefill = jax.jit(prefill, static_argnums=0)
jit_apply = jax.jit(apply, static_argnums=0)


def jit_draw(config, params, state, length, key, temperature=1.0, top_k=None):
    options = SamplingOptions(top_k=top_k)
    numbers = [jnp.asarray(temperature, jnp.float32), jnp.float32(options.min_length)]
    options = jax.tree.unflatten(jax.tree.structure(options), numbers)
    state, drawn = compiled_draw(config, params, state, length, key, options)
    return state, drawn.ids


def ready(config, rows=3, seed=0):
    """A state with a text behind it, other in each row."""
    random = np.random.default_rng(seed)
    carry = jax.tree.map(
        lambda leaf: random.normal(size=leaf.shape).astype("f4"),
        initial_carry(config, rows),
    )
    logits = random.normal(size=(rows, VOCAB)).astype("f4")
    return SamplingState(jnp.asarray(logits), carry, jnp.int32(0))


def test_greedy_is_a_loop_of_argmax():
    config = make_config()
    params, prime = some_params(config), some_ids(2, 4)
    logits, carry = jit_apply(config, params, prime, initial_carry(config, 2))
    last, expected = logits[:, -1], []
    for _ in range(12):
        expected.append(np.asarray(last.argmax(-1)))
        logits, carry = jit_apply(config, params, expected[-1][:, None], carry)
        last = logits[:, 0]
    expected = np.stack(expected, 1)
    for options in ({"top_k": 1}, {"temperature": 0.0}, {"temperature": 0.0, "top_k": 3}):
        actual = jit_sample(config, params, prime, 12, jax.random.key(0), **options)
        assert actual.dtype == jnp.int32
        np.testing.assert_array_equal(actual, expected)
    one = jit_sample(config, params, prime[0], 12, jax.random.key(0), 0.0)
    np.testing.assert_array_equal(one, expected[0])


@pytest.mark.parametrize("temperature", [1e-6, 1e-30, 2e-38, 1e-44])
@pytest.mark.parametrize("shift", [-20.0, 20.0])
def test_a_tiny_temperature_is_nearly_greedy(temperature, shift):
    config = make_config()
    state = ready(config, rows=8)
    state = state._replace(logits=state.logits + shift)
    args = (config, some_params(config), state, 1, jax.random.key(0))
    np.testing.assert_array_equal(
        jit_draw(*args, temperature=temperature)[1], state.logits.argmax(-1)[:, None]
    )


@pytest.mark.parametrize("top_k", [None, 3])
@pytest.mark.parametrize("chunks", [(5, 5), (1, 0, 9)], ids=str)
def test_chunks_equal_one_draw(chunks, top_k):
    config = make_config()
    params, key = some_params(config), jax.random.key(1)
    state = ready(config)
    last, whole = jit_draw(config, params, state, 10, key, 0.9, top_k=top_k)
    pieces = []
    for length in chunks:
        state, piece = jit_draw(config, params, state, length, key, 0.9, top_k=top_k)
        assert piece.shape == (3, length)
        pieces.append(piece)
    np.testing.assert_array_equal(np.concatenate(pieces, 1), whole)
    assert int(state.position) == int(last.position) == 10
    np.testing.assert_allclose(state.logits, last.logits, atol=1e-5)


def test_several_characters_a_round_are_the_same_text():
    config = make_config()
    args = config, some_params(config), ready(config), 10, jax.random.key(1)
    recurrence = Recurrence("gpu", place=Place("gpu"))
    in_rounds = jax.jit(draw, static_argnums=(0, 3), static_argnames="recurrence")
    last, drawn = in_rounds(*args, recurrence=recurrence)
    expected, expected_ids = jit_draw(*args)
    np.testing.assert_array_equal(drawn.ids, expected_ids)
    assert int(last.position) == int(expected.position)


@pytest.mark.parametrize("top_k", [None, 3])
def test_a_row_does_not_depend_on_the_rows_beside_it(top_k):
    config = make_config("gru")
    params, key = some_params(config), jax.random.key(2)
    prime = some_ids(5, 4)
    whole = np.asarray(jit_sample(config, params, prime, 20, key, top_k=top_k))
    for rows in (1, 2):
        part = jit_sample(config, params, prime[:rows], 20, key, top_k=top_k)
        np.testing.assert_array_equal(part, whole[:rows])
    beside = prime.copy()
    beside[1:] = (beside[1:] + 1) % VOCAB
    other = np.asarray(jit_sample(config, params, beside, 20, key, top_k=top_k))
    np.testing.assert_array_equal(other[0], whole[0])
    # The same prime in each row still gives different texts.
    same = np.asarray(jit_sample(config, params, prime[[0] * 5], 20, key, top_k=top_k))
    assert len({tuple(row) for row in same.tolist()}) == 5


def test_the_key_decides_and_dropout_does_not():
    config = make_config()
    params, prime = some_params(config), some_ids(2, 3)
    texts = [
        np.asarray(jit_sample(config, params, prime, 20, jax.random.key(seed)))
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(texts[0], texts[1])
    assert (texts[0] != texts[2]).any()
    calm = config.replace(**{"model.dropout": 0.0})
    np.testing.assert_array_equal(
        jit_sample(calm, params, prime, 20, jax.random.key(0)), texts[0]
    )


def chi_square(counts, probabilities):
    expected = counts.sum() * probabilities
    return ((counts - expected) ** 2 / expected).sum()


@pytest.mark.parametrize("top_k", [None, 2, VOCAB])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_first_characters_have_the_distribution_of_the_scores(temperature, top_k):
    config, rows = make_config(), 4000
    logits = np.array([0.3, -1.0, 1.2, 0.0, 0.9, -0.4])
    state = start(config, jnp.asarray(logits, jnp.float32), rows)
    drawn = jit_draw(
        config, some_params(config), state, 2, jax.random.key(3), temperature, top_k=top_k
    )[1]
    kept = np.argsort(-logits)[:top_k]
    weights = np.exp(logits[kept] / temperature)
    counts = np.bincount(np.asarray(drawn[:, 0]), minlength=VOCAB)
    assert counts.sum() == counts[kept].sum()
    # Above the 99.9th percentile for five degrees of freedom.
    assert chi_square(counts[kept], weights / weights.sum()) < 20.5


def test_later_characters_have_the_distribution_of_the_model():
    config, rows = make_config(), 4000
    params = some_params(config)
    certain = jnp.where(jnp.arange(VOCAB) == 2, 0.0, -1e9)
    drawn = jit_draw(config, params, start(config, certain, rows), 2, jax.random.key(4))[1]
    assert (drawn[:, 0] == 2).all()
    logits, _ = jit_apply(config, params, np.array([[2]]), initial_carry(config, 1))
    counts = np.bincount(np.asarray(drawn[:, 1]), minlength=VOCAB)
    assert chi_square(counts, np.asarray(jax.nn.softmax(logits[0, 0]))) < 20.5


def test_neighbouring_positions_and_rows_are_independent():
    config = make_config()
    params = jax.tree.map(jnp.zeros_like, some_params(config))
    state = start(config, jnp.zeros(VOCAB), 80)
    drawn = np.asarray(jit_draw(config, params, state, 80, jax.random.key(5))[1])
    for one, other in ((drawn[1:], drawn[:-1]), (drawn[:, 1:], drawn[:, :-1])):
        assert abs((one == other).mean() - 1 / VOCAB) < 0.03


def test_each_row_has_its_own_temperature():
    config = make_config()
    params, state = some_params(config), ready(config, rows=3)
    temperatures = jnp.array([0.0, 0.7, 3.0])
    together = jit_draw(config, params, state, 10, jax.random.key(6), temperatures)[1]
    for row, temperature in enumerate([0.0, 0.7, 3.0]):
        alone = jit_draw(config, params, state, 10, jax.random.key(6), temperature)[1]
        np.testing.assert_array_equal(together[row], alone[row])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("padding", [0, VOCAB - 1])
def test_prefill_with_padding_equals_the_text_alone(cell, padding):
    config = make_config(cell, 3)
    params, state = some_params(config), ready(config, 4)._replace(position=jnp.int32(7))
    lengths = np.array([6, 1, 3, 3], np.int32)
    ids = some_ids(4, 6)
    padded = np.where(np.arange(6) < lengths[:, None], ids, padding)
    after = jit_prefill(config, params, state, padded, lengths)
    assert int(after.position) == 7
    for row, length in enumerate(lengths):
        carry = jax.tree.map(lambda leaf, row=row: leaf[:, row : row + 1], state.carry)
        logits, carry = jit_apply(config, params, ids[row : row + 1, :length], carry)
        np.testing.assert_allclose(after.logits[row], logits[0, -1], atol=1e-5)
        for actual, expected in zip(after.carry, carry, strict=True):
            np.testing.assert_allclose(actual[:, row], expected[:, 0], atol=1e-5)


def test_prefill_in_two_parts_equals_one():
    config = make_config()
    params, state, ids = some_params(config), ready(config, 2), some_ids(2, 6)

    def read(state, ids):
        lengths = np.full(2, ids.shape[1], np.int32)
        return jit_prefill(config, params, state, ids, lengths)

    whole, parts = read(state, ids), read(read(state, ids[:, :2]), ids[:, 2:])
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("length", [0, 20])
def test_shapes_follow_the_prime(length):
    config = make_config()
    params, key = some_params(config), jax.random.key(0)
    assert jit_sample(config, params, some_ids(1, 3)[0], length, key).shape == (length,)
    assert jit_sample(config, params, some_ids(1, 3), length, key).shape == (1, length)


def test_sample_under_vmap_over_keys_and_temperatures():
    config = make_config()
    params, prime = some_params(config), some_ids(1, 3)[0]
    keys = jax.random.split(jax.random.key(0), 4)
    temperatures = jnp.array([0.0, 0.5, 1.0, 2.0])

    def one(key, temperature):
        return sample(config, params, prime, 20, key, temperature, 3)

    several = jax.jit(jax.vmap(one))(keys, temperatures)
    assert several.shape == (4, 20)
    for key, temperature, text in zip(keys, temperatures, several, strict=True):
        expected = jit_sample(config, params, prime, 20, key, temperature, top_k=3)
        np.testing.assert_array_equal(text, expected)


def test_another_temperature_does_not_compile_again():
    config = make_config()
    params, state = some_params(config), ready(config)
    for temperature in (0.5, 0.6, 0.0):
        jit_draw(config, params, state, 10, jax.random.key(0), temperature)
        size = compiled_draw._cache_size()
    jit_draw(config, params, state, 10, jax.random.key(1), 0.9)
    assert compiled_draw._cache_size() == size


WRONG = [
    *(("temperature", t) for t in (-0.1, math.nan, math.inf, -math.inf, 1e39)),
    *(("temperature", t) for t in ("hot", True, None)),
    *(("top_k", k) for k in (0, -3, 2.5, True, "all")),
]


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_options_that_mean_nothing_are_refused_by_name_when_they_are_built(field, value):
    with pytest.raises(InputError, match=f"^`{field}` is {re.escape(repr(value))}: "):
        SamplingOptions(**{field: value})


def of_sample(**options):
    config = make_config()
    prime = jnp.zeros(3, int)
    shaped = functools.partial(sample, config, some_params(config), prime, 5)
    return jax.eval_shape(functools.partial(shaped, **options), jax.random.key(0))


WRONG_FOR_SAMPLE = [
    *(("temperature", t) for t in (-0.1, math.nan, jnp.float32(-1))),
    *(("top_k", k) for k in (0, -3, True, VOCAB + 1)),
]


@pytest.mark.parametrize(("field", "value"), WRONG_FOR_SAMPLE, ids=str)
def test_the_pure_function_refuses_them_too(field, value):
    with pytest.raises(InputError, match=f"^`{field}` is .*: (give|expected) "):
        of_sample(**{field: value})


def test_top_k_is_at_most_the_size_of_the_vocabulary():
    options = SamplingOptions(top_k=VOCAB + 1)
    remedy = f"^`top_k` is {VOCAB + 1}: give a number from 1 to {VOCAB}, the size"
    with pytest.raises(InputError, match=remedy):
        of_sample(options=options)


@pytest.mark.parametrize("options", [(0, None), (1e3, 1), (3e38, None), (0.5, VOCAB)])
def test_options_at_their_limits_are_accepted(options):
    assert of_sample(options=SamplingOptions(*options)).shape == (5,)


def test_options_are_made_of_plain_numbers():
    options = SamplingOptions(np.float32(0.5), np.int64(3))
    assert (type(options.temperature), type(options.top_k)) == (float, int)
    assert SamplingOptions(temperature=0) == SamplingOptions(temperature=0.0)


def test_only_building_them_checks():
    """A transformation puts what it likes in the place of numbers."""
    options = SamplingOptions()
    for placeholder in (None, "x", -1.0, object()):
        leaves = jax.tree.map(lambda _, placeholder=placeholder: placeholder, options)
        assert leaves.temperature is placeholder
    assert jax.vmap(lambda o: o)(jax.tree.map(lambda _: jnp.ones(3), options))


def test_options_are_a_pytree_whose_numbers_are_data():
    options = SamplingOptions(temperature=0.5, top_k=3)
    assert jax.tree.leaves(options) == [0.5, 0]
    assert jax.tree.map(lambda number: number, options) == options
    other = jax.tree.structure(SamplingOptions(temperature=2.0, top_k=3))
    assert jax.tree.structure(options) == other
    assert jax.tree.structure(SamplingOptions(top_k=4)) != other


def test_each_option_is_a_keyword():
    assert get_type_hints(SamplingKeywords) == get_type_hints(SamplingOptions)
