"""The minimal long short-term memory (Feng et al. 2024, section 3.2), whose gates see the
input alone and share out 1."""

import jax
from jax import Array

from charjax.model.linear_recurrence import linear_cell


def _coefficients(x: Array) -> tuple[Array, Array]:
    forget, take = (jax.nn.log_sigmoid(x[..., k, :]) for k in (0, 1))
    # forget / (forget + take), where both may be too small for that.
    keep = jax.nn.sigmoid(forget - take)
    return keep, (1 - keep) * x[..., 2, :]


CELL = linear_cell(
    ("forget", "input", "new"), _coefficients, lambda config: (config.forget_bias, 0.0, 0.0)
)
