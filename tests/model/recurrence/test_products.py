"""The products around the recurrence, and rows read by id."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from one_layer import assert_close

from charjax.model.recurrence import products


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tail", [(), (2,), (2, 3)], ids=str)
def test_project_equals_a_plain_product(tail, dtype):
    random = np.random.default_rng(1)
    x = jnp.asarray(random.normal(size=(4, 2, 5)), jnp.float32)
    kernel = jnp.asarray(random.normal(size=(5, *tail)), jnp.float32)
    weights = jnp.asarray(random.normal(size=(4, 2, *tail)), jnp.float32)
    project, plain = (
        jax.value_and_grad(lambda x, k, f=f: (f(x, k) * weights).sum(), argnums=(0, 1))
        for f in (
            lambda x, k: products.project(dtype, x, k),
            lambda x, k: jnp.tensordot(x, k, 1, precision="highest"),
        )
    )
    assert products.project(dtype, x, kernel).dtype == jnp.float32
    assert_close(project(x, kernel), plain(x, kernel), 1e-5 if dtype == "float32" else 0.08)


@pytest.mark.parametrize("limit", [100, 6, 0], ids=["below", "at", "above"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tail", [(3,), (2, 3)], ids=str)
def test_lookup_equals_a_one_hot_product(monkeypatch, tail, dtype, limit):
    monkeypatch.setattr(products, "ONE_HOT_LIMIT", limit)
    random = np.random.default_rng(2)
    # Symbols 1 and 4 never occur, others more than once.
    ids = jnp.asarray(random.choice([0, 2, 3, 5], size=(7, 3)), jnp.int32)
    table = jnp.asarray(random.normal(size=(6, *tail)), jnp.float32)
    weights = jnp.asarray(random.normal(size=(7, 3, *tail)), jnp.float32)
    lookup = jax.value_and_grad(lambda t: (products.lookup(dtype, ids, t) * weights).sum())
    plain = jax.value_and_grad(
        lambda t: (jnp.tensordot(jax.nn.one_hot(ids, 6), t, 1) * weights).sum()
    )
    np.testing.assert_array_equal(products.lookup(dtype, ids, table), table[ids])
    assert_close(lookup(table), plain(table), 1e-5 if dtype == "float32" else 0.05)
    assert not lookup(table)[1][jnp.array([1, 4])].any()
