"""What the pure functions say of arguments that cannot be meant.

Kinds and shapes are known at trace time, and refused then. Values are looked at where they
are known: in NumPy arrays, and in JAX's outside of `jit`, `grad` and `vmap`.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from charjax.config.checks import AtLeast, check_instance, refuse
from charjax.config.schema import Config
from charjax.errors import InputError
from charjax.model.variants import cell_of

Count = Annotated[int, AtLeast(1)]

_KINDS: dict[Any, str] = {np.bool_: "booleans", np.integer: "whole numbers"}


def check_config(config: Any) -> None:
    """Refuses what is no Config."""
    check_instance("config", config, Config, "such as charjax.load_config('anna')")


def check_key(key: Any) -> None:
    """Refuses what is no PRNG key.

    >>> check_key(0)
    Traceback (most recent call last):
    charjax.errors.InputError: `key` is 0: expected a PRNG key, such as jax.random.key(0).
    """
    dtype = getattr(key, "dtype", np.dtype(object))
    # The second is the older kind, `jax.random.PRNGKey`.
    typed = jnp.issubdtype(dtype, jax.dtypes.prng_key)
    legacy = dtype == jnp.uint32
    if not (typed or legacy) or np.ndim(key) != (1 if legacy else 0):
        refuse("`key`", key, "expected a PRNG key, such as jax.random.key(0)")


def check_ids(name: str, ids: Any, axes: str, symbols: int) -> None:
    """Refuses what are no ids of so many symbols; `axes` is such as "batch time".

    >>> check_ids("ids", [0, 3], "batch time", symbols=3)
    Traceback (most recent call last):
    charjax.errors.InputError: `ids` is [0, 3]: expected whole numbers [batch, time].
    """
    dtype, shape = getattr(ids, "dtype", np.dtype(object)), np.shape(ids)
    if not jnp.issubdtype(dtype, jnp.integer) or len(shape) != len(axes.split()):
        wanted = f"expected whole numbers [{', '.join(axes.split())}]"
        encode = isinstance(ids, str | bytes)
        how = ", which `encode` of a vocabulary makes of a text" if encode else ""
        refuse(f"`{name}`", ids, wanted + how)
    known = not isinstance(ids, Tracer) and getattr(ids, "is_fully_addressable", True)
    if known and ids.size and jnp.iinfo(dtype).max >= symbols:
        # By NumPy, since under `jit` what JAX computes of a known array is not known.
        values = np.asarray(jax.device_get(ids))
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >= symbols:
            raise InputError(
                f"`{name}` has {low if low < 0 else high}: those of this model go from 0 "
                f"to {symbols - 1}; was the text encoded with another vocabulary?"
            )


def check_carry(config: Config, carry: Any, rows: int) -> None:
    """Refuses what is no recurrent state of so many rows.

    >>> check_carry(Config(), None, 2)
    Traceback (most recent call last):
    charjax.errors.InputError: `carry` is None: expected initial_carry(config, 2).
    """
    model = config.model
    kind, shape = cell_of(model).state, (model.num_layers, rows, model.hidden_size)
    if not isinstance(carry, kind):
        refuse("`carry`", carry, f"expected initial_carry(config, {rows})")
    for name, leaf in zip(kind._fields, carry, strict=True):
        dtype = getattr(leaf, "dtype", np.dtype(object))
        if not jnp.issubdtype(dtype, jnp.floating) or leaf.shape != shape:
            wanted = f"expected floats {list(shape)}, as initial_carry(config, {rows})"
            refuse(f"`carry.{name}`", leaf, wanted)


def check_of_rows(
    name: str, value: Any, kind: Any, shapes: Sequence[tuple[int, ...]]
) -> None:
    """Refuses an array, if there is one, of another kind or of none of these shapes."""
    if value is None:
        return
    dtype = getattr(value, "dtype", np.dtype(object))
    if not jnp.issubdtype(dtype, kind) or value.shape not in shapes:
        listed = " or ".join(str(list(shape)) for shape in dict.fromkeys(shapes))
        refuse(f"`{name}`", value, f"expected {_KINDS[kind]} {listed}")
