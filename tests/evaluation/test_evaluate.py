"""Scores against sums over single characters."""

import functools
import itertools
import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from charjax.config.schema import Config
from charjax.devices import mesh as meshes
from charjax.errors import InputError
from charjax.evaluation.evaluate import Evaluation, evaluate
from charjax.evaluation.protocols import stateful_batches, windowed_batches
from charjax.model.network import apply, init, initial_carry

VOCAB = 5


@functools.cache
def make_config(cell="gru", length=4, eval_rows=64):
    return Config().replace(
        **{
            "data.sequence_length": length,
            "model.cell": cell,
            "model.hidden_size": 4,
            "model.num_layers": 2,
            "model.dropout": 0.5,
            "train.eval_rows": eval_rows,
        }
    )


@functools.cache
def some_params(cell="gru"):
    shapes = jax.eval_shape(lambda: init(make_config(cell), VOCAB, jax.random.key(0)))
    random = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype("f4"), shapes)


def some_ids(n):
    return np.random.default_rng(n).integers(VOCAB, size=n).astype(np.uint8)


@functools.lru_cache
def mesh_of(devices):
    return meshes.make_mesh(jax.devices()[:devices])


single = jax.jit(apply, static_argnums=0)


@functools.cache
def nats_from_zero(text):
    """Nats of each character after the first, fed one at a time from zero state."""
    config = make_config()
    carry, nats = initial_carry(config, 1), []
    for before, after in itertools.pairwise(text):
        logits, carry = single(config, some_params(), np.array([[before]], np.int32), carry)
        wide = np.asarray(logits, np.float64).reshape(-1)
        nats.append(np.log(np.exp(wide).sum()) - wide[after])
    return nats


def by_hand(ids, cuts):
    """Mean nats with each stretch between two cuts scored from zero state."""
    nats = []
    for first, last in itertools.pairwise(cuts):
        nats += nats_from_zero(tuple(ids[first : last + 1].tolist()))
    assert len(nats) == len(ids) - 1
    return sum(nats) / len(nats)


def cuts_every(step, positions):
    return [*range(0, positions, step), positions]


@pytest.mark.parametrize(
    ("n", "rows", "length", "devices"),
    [
        *((2, 1, 4, 1), (2, 5, 4, 8), (3, 2, 4, 1), (9, 2, 4, 1), (10, 2, 4, 2)),
        *((11, 3, 4, 1), (12, 3, 4, 8), (14, 5, 4, 8), (17, 16, 4, 8), (17, 100, 4, 8)),
        *((24, 5, 4, 2), (31, 1, 4, 1), (31, 9, 4, 8), (33, 8, 4, 8), (33, 8, 1, 8)),
    ],
)
def test_stateful_scores_each_character_once(n, rows, length, devices):
    ids = some_ids(n)
    config = make_config(length=length)
    result = evaluate(config, some_params(), ids, rows=rows, mesh=mesh_of(devices))
    positions = n - 1
    row_length = -(-positions // min(rows, positions))
    assert result.nats_per_char == pytest.approx(
        by_hand(ids, cuts_every(row_length, positions)), rel=1e-5
    )
    assert (result.characters, result.window) == (positions, None)
    assert result.rows == min(rows, positions)


@pytest.mark.parametrize(
    ("n", "rows", "window", "devices"),
    [
        (2, 3, 4, 1),
        (9, 1, 4, 1),
        (12, 3, 4, 8),
        (23, 2, 4, 2),
        (33, 3, 4, 8),
        (9, 4, 100, 1),
    ],
)
def test_windowed_scores_each_character_once(n, rows, window, devices):
    ids = some_ids(n)
    result = evaluate(
        make_config(), some_params(), ids, rows=rows, window=window, mesh=mesh_of(devices)
    )
    expected = by_hand(ids, cuts_every(window, n - 1))
    assert result.nats_per_char == pytest.approx(expected, rel=1e-5)
    assert result.characters == n - 1
    assert result.window == min(window, n - 1)


@pytest.mark.parametrize("n", [2, 3, 8, 21, 50])
@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize("length", [1, 3, 64])
@pytest.mark.parametrize("protocol", [stateful_batches, windowed_batches])
def test_batches_hold_each_position_once(protocol, n, rows, length):
    ids = np.arange(n)
    seen = []
    for index, batch in enumerate(protocol(ids, rows, length)):
        assert (
            batch.inputs.shape == batch.targets.shape == batch.mask.shape == (rows, length)
        )
        assert (batch.targets - batch.inputs)[batch.mask].tolist() == [1] * batch.mask.sum()
        assert (batch.reset == (protocol is windowed_batches or index == 0)).all()
        seen += batch.targets[batch.mask].tolist()
    assert sorted(seen) == list(range(1, n))


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_mesh_does_not_matter(cell, window):
    ids = some_ids(60)
    results = [
        evaluate(
            make_config(cell),
            some_params(cell),
            ids,
            rows=6,
            window=window,
            mesh=mesh_of(k),
        )
        for k in (1, 2, 8)
    ]
    for result in results[1:]:
        assert result.nats_per_char == pytest.approx(results[0].nats_per_char, rel=1e-6)
        assert (result.characters, result.rows) == (59, 6)


def test_the_defaults_are_all_devices_and_the_configs_rows():
    ids, params = some_ids(33), some_params()
    default = evaluate(make_config(eval_rows=8), params, ids)
    assert default == evaluate(make_config(), params, ids, rows=8, mesh=mesh_of(8))
    assert default.rows == 8


@pytest.mark.parametrize("n", [0, 1])
def test_a_text_too_short_to_score_is_refused(n):
    with pytest.raises(InputError, match=f"has {n} character"):
        evaluate(make_config(), some_params(), some_ids(n))


@pytest.mark.parametrize("options", [{"rows": 0}, {"rows": -1}, {"window": 0}])
def test_impossible_options_are_refused_by_name(options):
    with pytest.raises(InputError, match=next(iter(options))):
        evaluate(make_config(), some_params(), some_ids(9), **options)


def test_a_model_that_knows_nothing_has_the_vocabulary_for_perplexity():
    params = jax.tree.map(jnp.zeros_like, some_params())
    result = evaluate(make_config(), params, some_ids(33), rows=8, mesh=mesh_of(8))
    assert result.nats_per_char == pytest.approx(math.log(VOCAB), rel=1e-6)
    assert result.perplexity == pytest.approx(VOCAB, rel=1e-6)
    assert result.bits_per_char == pytest.approx(math.log2(VOCAB), rel=1e-6)


def test_bits_and_perplexity():
    result = Evaluation(nats_per_char=2.0, characters=3, rows=1, window=None)
    assert result.bits_per_char == pytest.approx(2.885390081777927)
    assert result.perplexity == pytest.approx(7.38905609893065)


_LONG_TEXT = """
import jax, numpy as np
jax.config.update("jax_num_cpu_devices", 2)
from charjax import Config, DataConfig, ModelConfig, init
from charjax.evaluation.evaluate import evaluate

config = Config(data=DataConfig(sequence_length=50), model=ModelConfig(hidden_size=128))
params = init(config, 30, jax.random.key(0))
evaluate(config, params, np.arange(200_000) % 30)
"""


def test_several_cpu_devices_score_a_long_text():
    # With many windows under way at once they wait for each other for ever.
    subprocess.run([sys.executable, "-c", _LONG_TEXT], check=True, timeout=60)
