"""How arrays lie, which is a compiler's business: the mathematics is the same with each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike


def product(x: Array, y: Array, axes: int, dtype: DTypeLike) -> Array:
    """Contracts the last `axes` of x with the first of y, operands in `dtype`, the sum in
    float32 or better."""
    return contract(x, y, range(x.ndim - axes, x.ndim), range(axes), dtype)


def contract(x: Array, y: Array, of_x: Any, of_y: Any, dtype: DTypeLike) -> Array:
    """Contracts axes of x with axes of y, as `product` does."""
    return lax.dot_general(
        x.astype(dtype),
        y.astype(dtype),
        ((tuple(of_x), tuple(of_y)), ((), ())),
        precision=precision_of(dtype),
        preferred_element_type=jnp.promote_types(dtype, jnp.float32),
    )


def precision_of(dtype: DTypeLike) -> lax.Precision | None:
    """How a product in `dtype` treats its operands, on every platform alike.

    float32 is float32. By itself JAX would round such operands to tf32 on a GPU and to
    bfloat16 on a TPU; it still does where a process asks for that by
    `jax_default_matmul_precision`. What is narrower is multiplied as it is.

    >>> precision_of("float32"), precision_of("bfloat16")
    (Precision.HIGHEST, None)
    """
    settings: Any = jax.config
    asked = settings.jax_default_matmul_precision is not None
    narrow = jnp.finfo(dtype).bits < 32
    return None if asked or narrow else lax.Precision.HIGHEST


@dataclass(frozen=True)
class Layout:
    """What a compiler wants arrays to be like; hashable."""

    keep: Callable[[Any, Any], Any]
    """(dtype, tree) -> the tree as a loop keeps it for the reverse one, in `dtype`."""

    kept: Callable[[Any, Any], Any]
    """(dtype, kept tree) -> the tree in float32, or in `dtype` if that is wider."""

    transposed: Callable[[Array], Array]
    """kernel `[e, *w]` -> what `back` reads."""

    back: Callable[[Array, Array, Any], Array]
    """(gradient `[..., *w]`, transposed kernel, dtype) -> `[..., e]`."""

    weights: Callable[[Array, Array, Any], Array]
    """(x `[..., e]`, gradient `[..., *w]`, dtype) -> `[e, *w]`, summed over positions."""

    columns: Callable[[Array], Array]
    """hidden state `[b, h]` of a step -> what is kept of it for `hidden_weights`."""

    hidden_weights: Callable[[Array, Array, Any], Array]
    """(columns of all steps, gradient `[t, b, *w]`, dtype) -> `[h, *w]`."""


def _keep(dtype: Any, tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


def _kept(dtype: Any, tree: Any) -> Any:
    return _keep(jnp.promote_types(dtype, jnp.float32), tree)


def _same(x: Array) -> Array:
    return x


def _back(d: Array, kernel: Array, dtype: Any) -> Array:
    widths = kernel.ndim - 1
    return contract(d, kernel, range(d.ndim - widths, d.ndim), range(1, kernel.ndim), dtype)


def _weights(x: Array, d: Array, dtype: Any) -> Array:
    return contract(x, d, range(x.ndim - 1), range(x.ndim - 1), dtype)


GENERAL = Layout(_keep, _kept, _same, _back, _weights, _same, _weights)
"""Arrays as the mathematics has them."""
