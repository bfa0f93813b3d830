"""The Flax module that owns the parameters: input, scanned stack, head.

Only this file imports flax. Parameters are a plain nested dict:

    embedding/table  [v, e]            only with an embedding
    first/kernel_x   [e or v, g, h]    the first layer, whose input has its own width
    first/kernel_h   [h, g, h]
    first/bias       [g, h]
    first/bias_h     [g, h]            GRU only: the bias inside the reset gate's product
    rest/...         [l - 1, ...]      the other layers, stacked
    head/kernel      [h, v]
    head/bias        [v]
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from charjax.config.schema import Config, ModelConfig
from charjax.model import recurrence, stack
from charjax.model.cells import CELLS, Cell

Params = dict[str, Any]


class Network(nn.Module):
    """Characters in, scores of the next character out."""

    config: ModelConfig
    vocab_size: int
    dtype: str

    @nn.compact
    def __call__(
        self, ids: Array, carry: Any, key: Array | None = None, length: Array | None = None
    ) -> tuple[Array, Any]:
        """Ids `[t, b]` to logits `[t, b, v]` float32 and the states after the last step;
        with `length` to the logits `[b, v]` at each row's last step."""
        config, cell = self.config, CELLS[self.config.cell]
        inputs, table = ids, None
        if config.embedding_size is not None:
            table = _Embedding(self.vocab_size, config.embedding_size, name="embedding")()
        width = config.embedding_size or self.vocab_size
        first = _Layers(cell, width, config, name="first")()
        if table is not None and _symbols_first(table, first["kernel_x"], ids.size):
            exact = jnp.promote_types(self.dtype, jnp.float32)
            kernel = recurrence.project(exact, table, first["kernel_x"])
            first = {**first, "kernel_x": kernel}
        elif table is not None:
            inputs = recurrence.lookup(self.dtype, ids, table)
        rest = None
        if config.num_layers > 1:
            others = config.num_layers - 1
            rest = _Layers(cell, config.hidden_size, config, others, name="rest")()
        hidden, carry = stack.run(
            cell,
            self.dtype,
            first,
            rest,
            inputs,
            carry,
            dropout=config.dropout,
            key=key,
            length=length,
        )
        if length is not None:
            last = (length - 1)[None, :, None]
            hidden = jnp.take_along_axis(hidden, last, axis=0, mode="clip")[0]
        head = _Head(config.hidden_size, self.vocab_size, name="head")()
        logits = recurrence.project(self.dtype, hidden, head["kernel"])
        return logits + head["bias"], carry


def _symbols_first(table: Array, kernel: Array, positions: int) -> bool:
    """Whether it takes less work to project every symbol once, and look the projections
    up, than to project the embedding at every position; forward and backward."""
    symbols, width = table.shape
    gates = kernel[0].size
    by_symbol = 3 * symbols * width * gates + symbols * positions * gates
    by_position = 3 * positions * width * gates + symbols * positions * width
    return by_symbol < by_position and symbols <= recurrence.ONE_HOT_LIMIT


class _Embedding(nn.Module):
    vocab_size: int
    width: int

    @nn.compact
    def __call__(self) -> Array:
        return self.param(
            "table", nn.initializers.normal(1.0), (self.vocab_size, self.width)
        )


class _Head(nn.Module):
    hidden_size: int
    vocab_size: int

    @nn.compact
    def __call__(self) -> dict[str, Array]:
        shape = (self.hidden_size, self.vocab_size)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        return {
            "kernel": kernel,
            "bias": self.param("bias", nn.initializers.zeros, (self.vocab_size,)),
        }


class _Layers(nn.Module):
    """Parameters of one layer, or of `stacked` layers on a leading axis."""

    cell: Cell
    width: int
    config: ModelConfig
    stacked: int | None = None

    @nn.compact
    def __call__(self) -> dict[str, Array]:
        gates, hidden = len(self.cell.gates), self.config.hidden_size
        one_hot = self.config.embedding_size is None and self.stacked is None
        # One row of the kernel is read at a time when the input is one-hot: its fan-in
        # is one, not the size of the vocabulary.
        fan_in = 1 if one_hot else self.width
        params = {
            "kernel_x": self._param(
                "kernel_x", _normal(fan_in**-0.5), (self.width, gates, hidden)
            ),
            "kernel_h": self._param("kernel_h", _orthogonal, (hidden, gates, hidden)),
            "bias": self._param("bias", self._bias, (gates, hidden)),
        }
        if not self.cell.additive:
            params["bias_h"] = self._param("bias_h", nn.initializers.zeros, (gates, hidden))
        return params

    def _bias(self, key: Array, shape: tuple[int, ...]) -> Array:
        del key
        bias = jnp.zeros(shape, jnp.float32)
        if "forget" not in self.cell.gates:
            return bias
        return bias.at[self.cell.gates.index("forget")].set(self.config.forget_bias)

    def _param(self, name: str, initializer: Callable[..., Array], shape: Any) -> Array:
        count = self.stacked
        if count is None:
            return self.param(name, initializer, shape)

        def stacked(key: Array) -> Array:
            keys = jax.random.split(key, count)
            return jax.lax.map(lambda key: initializer(key, shape), keys)

        return self.param(name, stacked)


def _normal(scale: float) -> Callable[..., Array]:
    return nn.initializers.normal(scale)


def _orthogonal(key: Array, shape: tuple[int, int, int]) -> Array:
    """An orthogonal matrix for each gate (Saxe et al. 2014)."""
    keys = jax.random.split(key, shape[1])
    make = nn.initializers.orthogonal()
    # One after the other: XLA's batched decomposition shares out its work among the
    # threads that wait for it, and with several CPU devices may wait for ever.
    matrices = jax.lax.map(lambda key: make(key, (shape[0], shape[2])), keys)
    return jnp.moveaxis(matrices, 0, 1)


def network(config: Config, vocab_size: int) -> Network:
    """The module of a config, in its compute precision."""
    return Network(config.model, vocab_size, config.train.precision)


def initial_carry(config: Config, rows: int) -> Any:
    """Zero state of `rows` rows: leaves `[l, rows, h]` float32."""
    cell = CELLS[config.model.cell]
    return cell.initial_state(config.model.num_layers, rows, config.model.hidden_size)


def with_reset(carry: Any, reset: Array) -> Any:
    """The carry `[l, b, h]` with zeros in the rows that `reset [b]` bool names."""
    keep = ~reset[None, :, None]
    return jax.tree.map(lambda leaf: jnp.where(keep, leaf, 0.0), carry)


def init(config: Config, vocab_size: int, key: Array) -> Params:
    """Fresh parameters.

    Args:
      config: the run's config; only `model` matters here.
      vocab_size: number of symbols.
      key: a typed PRNG key.

    Returns:
      A nested dict of float32 arrays, laid out as the head of this file says.

    >>> import jax
    >>> from charjax import Config, ModelConfig, init
    >>> config = Config(model=ModelConfig(num_layers=3, hidden_size=16))
    >>> params = init(config, vocab_size=65, key=jax.random.key(0))
    >>> params["first"]["kernel_x"].shape, params["rest"]["kernel_h"].shape
    ((65, 4, 16), (2, 16, 4, 16))
    """
    ids = jnp.zeros((1, 1), jnp.int32)
    module = network(config, vocab_size)
    params: Any = module.init(key, ids, initial_carry(config, 1))["params"]
    return params


def apply(
    config: Config,
    params: Params,
    ids: Array,
    carry: Any,
    reset: Array | None = None,
    key: Array | None = None,
    length: Array | None = None,
) -> tuple[Array, Any]:
    """Scores of the next character at every position.

    T steps at once equal T calls of one step. Works under `jit`, `grad` (reverse mode)
    and `vmap`.

    Args:
      config: the run's config.
      params: parameters from `init`.
      ids: symbol ids `[b, t]`, an integer type.
      carry: recurrent state before the first step, leaves `[l, b, h]`
        (`initial_carry(config, b)` to begin with).
      reset: `[b]` bool, rows whose state becomes zero first.
      key: PRNG key of the dropout; None drops nothing.
      length: `[b]` int32, at least 1: rows whose state stays what it was after so many
        steps, for texts of different lengths. Forward only.

    Returns:
      Logits `[b, t, v]` float32 (natural log, not normalised), or with `length` those of
      each row's last step `[b, v]`, and the carry after the last step.

    >>> import jax
    >>> from charjax import Config, ModelConfig, apply, init, initial_carry
    >>> config = Config(model=ModelConfig(hidden_size=16))
    >>> params = init(config, 65, jax.random.key(0))
    >>> ids = jax.numpy.zeros((2, 10), int)
    >>> logits, carry = apply(config, params, ids, initial_carry(config, 2))
    >>> logits.shape, carry.h.shape
    ((2, 10, 65), (2, 2, 16))
    """
    if reset is not None:
        carry = with_reset(carry, reset)
    module = network(config, params["head"]["bias"].shape[0])
    logits, carry = module.apply(
        {"params": params}, ids.T.astype(jnp.int32), carry, key, length
    )
    return logits if length is not None else logits.transpose(1, 0, 2), carry
