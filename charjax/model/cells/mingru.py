"""The minimal gated recurrent unit (Feng et al. 2024, section 3.1), whose gate sees the
input alone."""

import jax
from jax import Array

from charjax.model.linear_recurrence import linear_cell


def _coefficients(x: Array) -> tuple[Array, Array]:
    update = jax.nn.sigmoid(x[..., 0, :])
    return 1 - update, update * x[..., 1, :]


CELL = linear_cell(("update", "new"), _coefficients, lambda config: 0.0)
