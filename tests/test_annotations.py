"""Annotations are checked at run time here, in the tests, and nowhere else."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import jaxtyping
import pytest

from charjax.model.loss import cross_entropy


def test_a_wrong_shape_or_type_raises_in_the_tests():
    logits, targets = jnp.zeros((2, 3, 5)), jnp.zeros((2, 3), int)
    assert cross_entropy(logits, targets).shape == (2, 3)
    for wrong in (targets[0], targets[:, None], targets.astype(float)):
        with pytest.raises(jaxtyping.TypeCheckError, match="targets"):
            jax.eval_shape(cross_entropy, logits, wrong)


def test_outside_the_tests_nothing_is_checked():
    program = """
import sys
import jax.numpy as jnp
import charjax
for name in charjax.__all__:
    getattr(charjax, name)
from charjax.model.loss import cross_entropy
# One target for several positions, which the annotation forbids.
assert cross_entropy(jnp.zeros((2, 3, 5)), jnp.zeros((1, 3), int)).shape == (2, 3)
assert "beartype" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
