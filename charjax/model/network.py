"""The network: ids in, scores of the next character out. Only this file imports flax.

What the parameters are stands in `parameters.py`; the Flax module makes them and lends
them to pure functions.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Integer

from charjax.config.checks import checked
from charjax.config.model import ModelConfig
from charjax.config.schema import Config
from charjax.config.train import TrainConfig
from charjax.model import parameters, stack
from charjax.model.arguments import (
    Count,
    check_carry,
    check_config,
    check_ids,
    check_key,
    check_of_rows,
)
from charjax.model.arithmetic import usual_promotion
from charjax.model.dropout import Dropout
from charjax.model.parameter import Parameter
from charjax.model.parameters import Params
from charjax.model.recurrence import products
from charjax.model.recurrence.choose import GENERAL_RECURRENCE, Recurrence
from charjax.model.recurrence.plain import zeroed
from charjax.model.variants import cell_of


class Network(nn.Module):
    """Characters in, scores of the next character out."""

    config: ModelConfig
    vocab_size: int
    dtype: str
    recurrence: Recurrence = GENERAL_RECURRENCE

    @nn.compact
    def __call__(
        self,
        ids: Array,
        carry: Any,
        reset: Array | None = None,
        length: Array | None = None,
        dropout: Dropout | None = None,
    ) -> tuple[Array, Any]:
        """Ids `[t, b]` to logits `[t, b, v]` float32 and the states after the last step;
        with `length` to the logits `[b, v]` at each row's last step."""
        cell, dtype = cell_of(self.config), self.dtype
        layout = self.recurrence.layout
        params = {
            group: _Group(members, name=group)()
            for group, members in parameters.table(self.config, self.vocab_size).items()
        }

        def run_layer(
            layer: Params, inputs: Array, state: Any, number: Array | int
        ) -> tuple[Array, Any]:
            if dropout is not None and dropout.kernels is not None:
                kernel_h = dropout.of_kernel(layer["kernel_h"], number)
                layer = {**layer, "kernel_h": kernel_h}
            hidden, state = self.recurrence.run(
                cell, dtype, layer, inputs, state, reset, length
            )
            if dropout is not None:
                hidden = dropout.of_output(hidden, number)
            return hidden, state

        inputs, first = self._read(ids, params, self.recurrence.takes_ids(cell), dropout)
        hidden, carry = stack.run(
            *(run_layer, first, params.get("rest"), inputs, carry),
            residual=self.config.residual,
            summed=self.config.sum_layers,
            loop_over_one=self.recurrence.place.platform == "cpu",
        )
        if length is not None:
            last = (length - 1)[None, :, None]
            hidden = jnp.take_along_axis(hidden, last, axis=0, mode="clip")[0]
        tied = self.config.tied
        kernel = params["embedding"]["table"].T if tied else params["head"]["kernel"]
        logits = products.project(dtype, hidden, kernel, layout)
        return logits + params["head"]["bias"], carry

    def _read(
        self, ids: Array, params: Params, takes_ids: bool, dropout: Dropout | None
    ) -> tuple[Array, Params]:
        """What the first layer reads, and its parameters."""
        first = params["first"]
        if "embedding" not in params:
            if dropout is not None:
                first = {**first, "kernel_x": dropout.of_symbols(first["kernel_x"])}
            if takes_ids:
                return ids, first
            return jax.nn.one_hot(ids, self.vocab_size, dtype=jnp.float32), first
        table = params["embedding"]["table"]
        table = table if dropout is None else dropout.of_symbols(table)
        if not takes_ids or not _symbols_first(table, first["kernel_x"], ids.size):
            return products.lookup(self.dtype, ids, table), first
        exact = jnp.promote_types(self.dtype, jnp.float32)
        layout = self.recurrence.layout
        kernel = products.project(exact, table, first["kernel_x"], layout)
        return ids, {**first, "kernel_x": kernel}


def _symbols_first(table: Array, kernel: Array, positions: int) -> bool:
    """Whether it takes less work to project every symbol once, and look the projections
    up, than to project the embedding at every position; forward and backward."""
    symbols, width = table.shape
    gates = kernel[0].size
    by_symbol = 3 * symbols * width * gates + symbols * positions * gates
    by_position = 3 * positions * width * gates + symbols * positions * width
    return by_symbol < by_position and symbols <= products.ONE_HOT_LIMIT


class _Group(nn.Module):
    """The parameters of one group of the table."""

    members: dict[str, Parameter]

    @nn.compact
    def __call__(self) -> dict[str, Array]:
        return {
            name: jnp.asarray(
                self.param(name, parameter.initial, parameter.shape, jnp.float32)
            )
            for name, parameter in self.members.items()
        }


def initial_carry(config: Config, rows: int) -> Any:
    """Zero state of `rows` rows: leaves `[l, rows, h]` float32."""
    check_config(config)
    rows = checked("`rows`", rows, Count)
    model = config.model
    return cell_of(model).initial_state(model.num_layers, rows, model.hidden_size)


@usual_promotion()
def init(config: Config, vocab_size: int, key: Array) -> Params:
    """Fresh parameters.

    Args:
      config: the run's config; only `model` matters here.
      vocab_size: number of symbols.
      key: a typed PRNG key.

    Raises:
      InputError: no symbol, or arguments of other kinds.

    Returns:
      A nested dict of float32 arrays, laid out as `model/parameters.py` says.

    >>> import jax
    >>> from charjax import Config, ModelConfig, init
    >>> config = Config(model=ModelConfig(num_layers=3, hidden_size=16))
    >>> params = init(config, vocab_size=65, key=jax.random.key(0))
    >>> params["first"]["kernel_x"].shape, params["rest"]["kernel_h"].shape
    ((65, 4, 16), (2, 16, 4, 16))
    """
    check_config(config)
    check_key(key)
    vocab_size = checked("`vocab_size`", vocab_size, Count)
    module = Network(config.model, vocab_size, config.train.precision)
    ids = jnp.zeros((1, 1), jnp.int32)
    params: Any = module.init(key, ids, initial_carry(config, 1))["params"]
    return params


def of_network(config: Config) -> Config:
    """A config with what the network depends on alone.

    As the static argument of a program, it lets runs that differ in all else share it.
    """
    train = TrainConfig(precision=config.train.precision)
    return Config(model=config.model, train=train)


@usual_promotion()
def apply(
    config: Config,
    params: Params,
    ids: Integer[Array | np.ndarray, "batch time"],
    carry: Any,
    reset: Bool[Array | np.ndarray, "batch resets"] | None = None,
    key: Array | None = None,
    length: Integer[Array | np.ndarray, " batch"] | None = None,
    *,
    dropout: Array | float | None = None,
    recurrence: Recurrence = GENERAL_RECURRENCE,
) -> tuple[Float[Array, "batch *time vocab"], Any]:
    """Scores of the next character at every position.

    T steps at once equal T calls of one step. Works under `jit`, `grad` (reverse mode)
    and `vmap`.

    Args:
      config: the run's config.
      params: parameters from `init`.
      ids: symbol ids `[b, t]`, an integer type. Where their values are not known, as under
        `jit`, one outside the vocabulary gives scores that mean nothing, and no error.
      carry: recurrent state before the first step, leaves `[l, b, h]`
        (`initial_carry(config, b)` to begin with).
      reset: where the state becomes zero before a step, `[b, t]` bool; `[b, 1]` where only
        the first step can ask, which costs nothing in the loop.
      key: PRNG key of the dropout; None drops nothing.
      length: `[b]` int32, at least 1: rows whose state stays what it was after so many
        steps, for texts of different lengths. Forward only.
      dropout: the share to drop, instead of a `model.dropout` that is not 0.
      recurrence: its implementation; `devices.mesh.recurrence_for` knows the fastest for
        a place.

    Raises:
      InputError: parameters, carry or ids that do not fit the config or each other, at
        trace time; an id outside the vocabulary, where its value is known.

    Returns:
      Logits `[b, t, v]` float32 (natural log, not normalised), or with `length` those of
      each row's last step `[b, v]`, and the carry after the last step.

    >>> import jax
    >>> from charjax import Config, ModelConfig, apply, init, initial_carry
    >>> config = Config(model=ModelConfig(hidden_size=16))
    >>> params = init(config, 65, jax.random.key(0))
    >>> ids = jax.numpy.array([[1, 2, 3]])
    >>> logits, carry = apply(config, params, ids, initial_carry(config, rows=1))
    >>> logits.shape, carry.h.shape
    ((1, 3, 65), (2, 1, 16))
    """
    check_config(config)
    vocab_size, model = parameters.vocab_size(params), config.model
    parameters.check(model, vocab_size, params)
    check_ids("ids", ids, "batch time", vocab_size)
    rows, steps = ids.shape
    check_carry(config, carry, rows)
    carry = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), carry)
    check_of_rows("reset", reset, np.bool_, [(rows, steps), (rows, 1)])
    check_of_rows("length", length, np.integer, [(rows,)])
    if key is not None:
        check_key(key)
    if reset is not None and reset.shape[1] == 1:
        carry, reset = zeroed(carry, reset[:, 0]), None
    module = Network(model, vocab_size, config.train.precision, recurrence)
    drops = None if key is None else Dropout.of(model, key, dropout)
    logits, carry = module.apply(
        *({"params": params}, jnp.asarray(ids, jnp.int32).T, carry),
        reset=None if reset is None else jnp.asarray(reset).T,
        length=None if length is None else jnp.asarray(length),
        dropout=drops,
    )
    return logits if length is not None else logits.transpose(1, 0, 2), carry
