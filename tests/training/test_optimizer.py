"""Schedules by hand, and what the chain does to which leaf."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from charjax.config.schema import Config
from charjax.errors import InputError
from charjax.model.network import init
from charjax.training.optimizer import optimizer
from charjax.training.schedule import (
    resolve,
    schedule,
    total_steps,
    updates_at_zero,
    with_end,
)

NAMES = ["adam", "adamw", "rmsprop", "adagrad", "sgd", "lion", "muon"]
PEAK = 0.5
SIZES = {"model.num_layers": 3, "model.hidden_size": 16}


def make_config(**options):
    plain = {"clip_norm": None, "schedule": "constant", "warmup_steps": 0}
    options = {"learning_rate": PEAK, **plain, **options}
    fields = {f"optimizer.{name}": value for name, value in options.items()}
    return Config().replace(**SIZES, **fields)


@functools.cache
def random_tree(embedding=None, seed=0):
    config = make_config().replace(**{"model.embedding_size": embedding})
    shapes = jax.eval_shape(lambda: init(config, 11, jax.random.key(0)))
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype("f4"), shapes)


def named(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def first_update(config, gradients, params):
    chain = optimizer(config)

    @jax.jit
    def update(gradients, params):
        return chain.update(gradients, chain.init(params), params)[0]

    return named(update(gradients, params))


def rates(config, count):
    return np.asarray(jax.jit(jax.vmap(schedule(config)))(jnp.arange(count)))


def cosine(k, steps, end):
    return end + (1 - end) * (1 + math.cos(math.pi * min(k / steps, 1))) / 2


def linear(k, steps, end):
    return 1 - (1 - end) * min(k / steps, 1)


@pytest.mark.parametrize("warmup", [0, 1, 4])
@pytest.mark.parametrize("end", [0.0, 0.1])
@pytest.mark.parametrize("shape", [cosine, linear])
def test_cosine_and_linear_by_hand(shape, end, warmup):
    options = {"schedule_steps": 12, "final_scale": end, "warmup_steps": warmup}
    actual = rates(make_config(schedule=shape.__name__, **options), 20)
    rise = [(k + 1) / warmup for k in range(warmup)]
    fall = [shape(k, 12 - warmup, end) for k in range(20 - warmup)]
    np.testing.assert_allclose(actual, PEAK * np.array(rise + fall), rtol=1e-5, atol=1e-7)
    assert actual[0] > 0 and max(actual) == pytest.approx(PEAK)
    np.testing.assert_allclose(actual[12:], PEAK * end, atol=1e-7)


@pytest.mark.parametrize("warmup", [0, 4, 15])
@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_a_new_end_holds_from_its_step_on(name, warmup):
    def of(end):
        return make_config(schedule=name, schedule_steps=end, warmup_steps=warmup)

    before, after, last = (rates(of(end), 40) for end in (12, 30, 20))
    longer = with_end(of(12), 30, 10)
    expected = np.concatenate([before[:10], after[10:]])
    np.testing.assert_allclose(rates(longer, 40), expected, rtol=1e-6, atol=1e-6)
    # Twice, from an earlier step than before, and back again.
    twice = with_end(longer, 20, 18)
    expected = np.concatenate([before[:10], after[10:18], last[18:]])
    np.testing.assert_allclose(rates(twice, 40), expected, rtol=1e-6, atol=1e-6)
    again = with_end(twice, 30, 6)
    expected = np.concatenate([before[:6], after[6:]])
    np.testing.assert_allclose(rates(again, 40), expected, rtol=1e-6, atol=1e-6)
    # Many peaks at once, as a sweep has them.
    many = jax.vmap(lambda peak: schedule(twice, peak)(15))(np.array([PEAK, 2 * PEAK]))
    np.testing.assert_allclose(many, [after[15], 2 * after[15]], rtol=1e-6)
    assert with_end(longer, 12, 5) == of(12) and with_end(longer, 30, 15) == longer
    assert with_end(of(12), 30, 0) == of(30)
    for config in (of(12), longer, twice, again):
        found = rates(config, 40)
        for first, total in ((0, 40), (5, 12), (13, 25), (25, 40), (40, 40)):
            zeros = int((abs(found[first:total]) < 1e-6).sum())
            assert updates_at_zero(config, first, total) == zeros


@pytest.mark.parametrize("warmup", [0, 1, 5])
def test_constant_after_a_warm_up_that_does_not_begin_at_zero(warmup):
    expected = [min((k + 1) / warmup, 1) if warmup else 1 for k in range(9)]
    actual = rates(make_config(warmup_steps=warmup), 9)
    np.testing.assert_allclose(actual, PEAK * np.array(expected), rtol=1e-6)


@pytest.mark.parametrize("after", [0, 1, 3])
def test_exponential_is_char_rnns_loop(after):
    options = {"decay_rate": 0.9, "decay_after_epochs": after, "epoch_steps": 4}
    expected, rate = [], PEAK
    for iteration in range(1, 30):
        expected.append(rate)
        # char-rnn's train.lua: at the end of an epoch, from epoch `after` on.
        if iteration % 4 == 0 and iteration / 4 >= after:
            rate *= 0.9
    actual = rates(make_config(schedule="exponential", **options), 29)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("cosine", "optimizer.schedule_steps"),
        ("linear", "optimizer.schedule_steps"),
        ("exponential", "optimizer.epoch_steps"),
    ],
)
def test_a_missing_horizon_is_named(name, field):
    config = make_config(schedule=name)
    endless = config.replace(**{"train.steps": None, "train.epochs": 3.0})
    with pytest.raises(InputError, match=field):
        schedule(endless)
    assert schedule(resolve(endless, 10))(0) == pytest.approx(PEAK)


@pytest.mark.parametrize(
    ("steps", "epochs", "expected"),
    [
        (None, 2.5, 25),
        (7, 2.5, 7),
        (100, 0.5, 5),
        (None, 0.001, 1),
        (7, None, 7),
        (None, 0.26, 3),
    ],
)
def test_total_steps_and_resolve(steps, epochs, expected):
    config = Config().replace(**{"train.steps": steps, "train.epochs": epochs})
    assert total_steps(config, 10) == expected
    resolved = resolve(config, 10)
    assert resolved.optimizer.schedule_steps == expected
    assert resolved.optimizer.epoch_steps == 10
    # A run made longer, or a text of another length, leaves the horizon alone.
    longer = resolved.replace(**{"train.steps": 999, "train.epochs": None})
    assert resolve(longer, 55) == longer
    given = config.replace(**{"optimizer.schedule_steps": 3, "optimizer.epoch_steps": 4})
    assert resolve(given, 10) == given


@pytest.mark.parametrize("name", NAMES)
def test_the_state_tree_does_not_depend_on_the_schedule(name):
    trees = []
    for kind in ("constant", "exponential", "cosine", "linear"):
        for warmup in (0, 5):
            config = make_config(name=name, schedule=kind, warmup_steps=warmup)
            trees.append(jax.eval_shape(optimizer(resolve(config, 10)).init, random_tree()))
    shapes = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree) for tree in trees]
    assert all(shape == shapes[0] for shape in shapes)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("embedding", [None, 8])
def test_weight_decay_touches_matrices_only(name, embedding):
    params = random_tree(embedding)
    config = make_config(name=name, weight_decay=0.1).replace(
        **{"model.embedding_size": embedding}
    )
    updates = first_update(config, jax.tree.map(np.zeros_like, params), params)
    for path, value in named(params).items():
        expected = 0 * value if "bias" in path else -PEAK * 0.1 * value
        np.testing.assert_allclose(updates[path], expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("value", "norm"), [(None, None), (0.1, None), (None, 2.0), (0.1, 2.0), (None, 1e6)]
)
def test_clipping_by_value_then_by_norm(value, norm):
    gradients = random_tree(seed=1)
    config = make_config(name="sgd", clip_value=value, clip_norm=norm)
    expected = named(gradients)
    if value is not None:
        expected = {path: np.clip(leaf, -value, value) for path, leaf in expected.items()}
    length = math.sqrt(sum((leaf.astype("f8") ** 2).sum() for leaf in expected.values()))
    scale = 1 if norm is None else min(1, norm / length)
    updates = first_update(config, gradients, random_tree())
    for path, leaf in expected.items():
        np.testing.assert_allclose(updates[path], -PEAK * scale * leaf, rtol=1e-5)


def orthogonal(matrices):
    u, _, v = np.linalg.svd(matrices, full_matrices=False)
    return u @ v


def as_matrices(leaf):
    """[..., in, gates, out] as a matrix for each layer and gate."""
    return np.moveaxis(leaf, -2, 0).reshape(-1, leaf.shape[-3], leaf.shape[-1])


@pytest.mark.parametrize("embedding", [None, 8])
def test_muon_orthogonalises_each_gate_of_each_layer_and_leaves_the_rest_to_adam(embedding):
    params, random = random_tree(embedding), np.random.default_rng(2)

    def gradient(leaf):
        if leaf.ndim < 3:
            return leaf
        # Orthogonal matrices of very different length in each gate and layer: muon
        # must see each alone to give all the same length.
        q = orthogonal(np.moveaxis(leaf, -2, -3))
        q *= 10 ** random.uniform(-2, 2, size=(*q.shape[:-2], 1, 1))
        return np.moveaxis(q, -3, -2).astype("f4")

    gradients = jax.tree.map(gradient, params)
    config = make_config(name="muon").replace(**{"model.embedding_size": embedding})
    updates = first_update(config, gradients, params)
    expected = {"first/kernel_h", "rest/kernel_x", "rest/kernel_h"}
    if embedding is not None:
        expected.add("first/kernel_x")
    for path, gradient in named(gradients).items():
        actual = -updates[path] / PEAK
        if path not in expected:
            # Adam's first update has one size for every element.
            size = np.abs(actual).max()
            np.testing.assert_allclose(actual, size * np.sign(gradient), rtol=1e-2)
            assert 0.9 < size < 1.6
            continue
        actual, wanted = as_matrices(actual), orthogonal(as_matrices(gradient))
        size = np.linalg.svd(actual, compute_uv=False).max()
        np.testing.assert_allclose(actual, size * wanted, atol=1e-3)
        assert 0.6 < size / (0.2 * max(actual.shape[1:]) ** 0.5) < 1.3


def plain_update(name, g, p, t, memory):
    """One update of one array, from each paper's equations."""
    m, v = memory.get("m", 0.0 * g), memory.get("v", 0.0 * g)
    if name == "sgd":
        return g
    if name == "adagrad":
        memory["v"] = v = v + g**2
        return g / (np.sqrt(v) + 1e-8)
    if name == "rmsprop":
        memory["v"] = v = 0.95 * v + 0.05 * g**2
        return g / (np.sqrt(v) + 1e-8)
    if name == "lion":
        memory["m"] = 0.99 * m + 0.01 * g
        return np.sign(0.9 * m + 0.1 * g)
    memory["m"] = m = 0.9 * m + 0.1 * g
    memory["v"] = v = 0.999 * v + 0.001 * g**2
    return (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "muon"])
def test_three_updates_by_the_equations(name):
    chain = optimizer(make_config(name=name))
    params = {"head": {"kernel": np.ones((3, 2), "f4")}}
    state, memory = chain.init(params), {}
    update = jax.jit(chain.update)
    for t in range(1, 4):
        g = np.random.default_rng(t).normal(size=(3, 2)).astype("f4")
        updates, state = update({"head": {"kernel": g}}, state, params)
        expected = -PEAK * plain_update(name, g.astype("f8"), None, t, memory)
        np.testing.assert_allclose(updates["head"]["kernel"], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("sgd", {"beta1": 0.5}),
        ("adam", {"beta1": 0.0, "beta2": 0.5}),
        ("lion", {"beta1": 0.0}),
    ],
)
def test_betas_are_passed_on(name, rate):
    usual, given = (optimizer(make_config(name=name, **extra)) for extra in ({}, rate))
    params = {"head": {"kernel": np.ones((30, 20), "f4")}}
    results = []
    for chain in (usual, given):
        state = chain.init(params)
        for t in range(3):
            g = np.random.default_rng(t).normal(size=(30, 20)).astype("f4")
            updates, state = chain.update({"head": {"kernel": g}}, state, params)
        results.append(updates["head"]["kernel"])
    assert np.abs(results[0] - results[1]).max() > 0.01
